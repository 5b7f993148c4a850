"""What training does to weights and averages, in place: `elementwise`, `adaptive`, `muon`; `clip`.

Muon is made of products of small matrices (`products`).
"""
