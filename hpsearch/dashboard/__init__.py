"""optuna-dashboard as the window on the searches: quick, and for nobody but who may look."""
