"""What training does to weights and averages, in place: `elementwise`, and Muon (`muon`).

Muon is made of products of small matrices (`products`).
"""
