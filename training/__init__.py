"""What runs on the machine that trains: recipe, stdout protocol and the DeepSpeed loop.

This package imports nothing else of the project, because it is shipped alone. `training.recipe` and
`training.protocol` are light: fronts and the service import them, so they never load torch.
"""
