"""What training does to weights and averages, in place: `elementwise`, and `muon`.

Muon is made of products of small matrices (`products`).
"""
