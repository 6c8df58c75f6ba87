"""The Ryu apps that program the fabric."""
