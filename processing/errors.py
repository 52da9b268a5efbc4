"""The named errors of the processing package."""


class MidiError(ValueError):
    """A MIDI file that cannot be used; its subclasses say why."""


class MidiFormatError(MidiError):
    """Not a Standard MIDI File of type 0 or 1, or a damaged one."""


class TimeSignatureError(MidiError):
    """A metre other than 4/4, or one that changes."""


class TempoError(MidiError):
    """A tempo that changes or lies outside the playable range."""


class NoDrumHitsError(MidiError):
    """No note that the pitch map knows on the drum channel."""


class MidiLengthError(MidiError):
    """A recording longer than any performance, or shorter than what is asked of it."""


class PianoRollError(ValueError):
    """A piano roll or timing array of the wrong shape, dtype or range."""


class ProcessorConfigError(ValueError):
    """A model folder or repository without the settings of a `MusicVAEProcessor`."""


class DatasetFolderError(ValueError):
    """A dataset folder or archive that is damaged, incomplete, malformed, or not to be had."""


class SoundError(ValueError):
    """Samples that cannot be written as sound, or a SoundFont that cannot be read."""


class MissingLibraryError(ImportError):
    """An optional library that is not installed; the message says how to install it."""
