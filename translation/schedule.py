"""How long a translator trains, and at which rate."""

from dataclasses import dataclass

from bdl.runtime.config import TranslatorTraining


@dataclass(frozen=True)
class Schedule:
    """Epochs at the full rate, then a linear descent to zero; epochs are counted from 1."""

    constant_epochs: int
    decay_epochs: int
    steps_per_epoch: int

    @classmethod
    def of(cls, training: TranslatorTraining, source_images: int) -> "Schedule":
        """The configured schedule; without `steps_per_epoch` one sees every source image."""
        per_epoch = training.steps_per_epoch or max(1, source_images // training.batch_size)
        return cls(training.constant_epochs, training.decay_epochs, per_epoch)

    @property
    def steps(self) -> int:
        """Steps in which something is learned: the last epoch's rate is zero if there is decay."""
        idle = 1 if self.decay_epochs else 0
        return (self.constant_epochs + self.decay_epochs - idle) * self.steps_per_epoch

    def factor(self, step: int) -> float:
        """Factor of the learning rate in `step`, counted from 0; in [0, 1]."""
        if not self.decay_epochs:
            return 1.0
        epoch = step // self.steps_per_epoch + 1
        return 1 - max(0, epoch + 1 - self.constant_epochs) / (self.decay_epochs + 1)
