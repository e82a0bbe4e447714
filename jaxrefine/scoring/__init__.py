"""What the model says of each candidate: scorers, and the objectives that join model, scorer and loss."""
