"""The named errors of the processing package."""


class MidiError(ValueError):
    """A MIDI file that cannot be used; its subclasses say why."""


class MidiFormatError(MidiError):
    """Not a Standard MIDI File of type 0 or 1, or a damaged one."""


class ChannelError(MidiError):
    """Notes, but none on the channel asked for, or no way to tell which channel has the drums."""


class TimeSignatureError(MidiError):
    """Bars in another metre than 4/4."""


class TempoError(MidiError):
    """A tempo outside the playable range."""


class NoDrumHitsError(MidiError):
    """No note at all, or none that the pitch map knows."""


class MidiLengthError(MidiError):
    """A recording longer than any performance, or shorter than what is asked of it."""


class PianoRollError(ValueError):
    """A piano roll or timing array of the wrong shape, dtype or range."""


class PitchMapError(ValueError):
    """A pitch map that is unknown, unreadable, incomplete or ambiguous."""


class ProcessorConfigError(ValueError):
    """A model folder or repository without the settings of a `MusicVAEProcessor`."""


class DatasetFolderError(ValueError):
    """A dataset folder or archive that is damaged, incomplete, malformed, or not to be had."""


class SoundError(ValueError):
    """Samples that cannot be written as sound, or a SoundFont that cannot be read."""


class MissingLibraryError(ImportError):
    """An optional library that is not installed; the message says how to install it."""


class NotAFileError(OSError):
    """The path of a folder, device or pipe where a regular file is expected."""
