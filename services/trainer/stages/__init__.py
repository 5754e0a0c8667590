"""The stages of a run, each a function over a run folder; `python -m services.trainer.stages FOLDER` runs them all."""
