"""A watcher that remembers, and does what it is told to."""

from stn_cli.training.watching import Watcher


class Said(Watcher):
    """Steps, validations and warnings of a run; `at_step` is called with every step."""

    def __init__(self, at_step=lambda step: None):
        self.steps, self.validations, self.warnings, self.at_step = [], [], [], at_step

    def stepped(self, trainer, means):
        self.steps.append(trainer.step)
        self.at_step(trainer.step)

    def validated(self, trainer, validation):
        self.validations.append(validation)

    def warned(self, text):
        self.warnings.append(text)
