"""What rendered words are told: frozen structures, part of a run's configuration."""

import msgspec

from stn_cli.errors import UsageError

Range = tuple[float, float]


class TextScene(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges of one kind of bent words.

    Attributes:
        name: under which validation reports it.
        weight: how often it is drawn, against the other scenes.
        rotation: degrees, drawn within ±rotation.
        arc: degrees that a word spans on its circle, either way.
        arcs: share of words on an arc.
        waves: share of words on a wavy line; `wave` is the amplitude in half heights at most.
        shear: shear factor, drawn within ±shear.
        perspective: change of the homogeneous weight from the middle to an end of the word, within ±perspective.
        paper: share of words that lie on a rectangle of their own, turned with them, on one plain colour.
        cut, loose: shares of crop boxes that cut into the word, and that are far too large; the rest is tight.
    """

    name: str
    weight: float = 1.0
    rotation: float = 6.0
    arc: Range = (10.0, 120.0)
    arcs: float = 0.0
    waves: float = 0.0
    wave: float = 0.5
    shear: float = 0.15
    perspective: float = 0.05
    paper: float = 0.0
    cut: float = 0.12
    loose: float = 0.2

    def __post_init__(self) -> None:
        shares = (self.arcs, self.waves, self.paper, self.cut + self.loose)
        if not all(0 <= share <= 1 for share in shares) or self.weight < 0:
            raise UsageError(f"text scene {self.name!r}: shares are 0 to 1, weight is not negative")
        if not 0 < self.arc[0] <= self.arc[1] < 360 or not 0 <= self.perspective < 0.6:
            raise UsageError(f"text scene {self.name!r}: 0 < arc < 360, lower end first, and 0 ≤ perspective < 0.6")


class TextConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words rendered for training; the data of such a run are folders of fonts.

    Attributes:
        words: file with one word a line.
        masks: how many words are rendered to be bent and coloured anew, over and over.
        short: share of them that is made of one to three characters alone, beside those that are so anyway.
        held_out_fonts: share of font families to validate on.
        scenes: how the words lie.
    """

    words: str
    masks: int = 40_000
    short: float = 0.0
    held_out_fonts: float = 0.06
    scenes: tuple[TextScene, ...]

    def __post_init__(self) -> None:
        if not any(scene.weight > 0 for scene in self.scenes):
            raise UsageError("text needs at least one scene with a weight above 0")
        if self.masks < 64 or not 0 < self.held_out_fonts < 1 or not 0 <= self.short <= 1:
            raise UsageError("text: masks is at least 64, 0 < held_out_fonts < 1 and 0 ≤ short ≤ 1")
