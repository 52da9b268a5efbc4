"""The nine drums of a piano roll and the MIDI pitches that play them."""

DRUM_NAMES = (
    "kick",
    "snare",
    "closed hi-hat",
    "open hi-hat",
    "low tom",
    "mid tom",
    "high tom",
    "crash",
    "ride",
)
NUM_DRUMS = len(DRUM_NAMES)

# For each drum its pitches; the first of them is the one that is written out.
PITCH_MAPS: dict[str, tuple[tuple[int, ...], ...]] = {
    # The Roland TD-11 kit on which the Groove MIDI Dataset was recorded.
    "roland_td11": (
        (36,),
        (38, 37, 40),
        (42, 22, 44),
        (46, 26),
        (43, 58),
        (47, 45),
        (50, 48),
        (49, 52, 55, 57),
        (51, 53, 59),
    ),
    # General MIDI percussion, reduced to nine drums as Magenta does at inference.
    "general_midi": (
        (36, 35),
        (38, 27, 28, 31, 32, 33, 34, 37, 39, 40, 56, 65, 66, 75, 85),
        (42, 44, 54, 68, 69, 70, 71, 73, 78, 80, 22),
        (46, 67, 72, 74, 79, 81, 26),
        (45, 29, 41, 43, 61, 64, 84),
        (48, 47, 60, 63, 77, 86, 87),
        (50, 30, 62, 76, 83),
        (49, 52, 55, 57, 58),
        (51, 53, 59, 82),
    ),
}
