"""Makes tests/golden: `python tests/make_golden.py FOLDER`, the folder with Magenta's recordings.

They are what Magenta's implementations, in TensorFlow (`tf/`) and in JavaScript (`js/`), compute
with small random weights. A repository should hold as many of them as one small model each.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("golden")
OF_TENSORFLOW = (
    *("config_json", "enc_input", "eps", "z_random"),
    *(f"full/{name}" for name in ("mu", "sigma", "z", "kl", "r_loss", "loss", "logits")),
    *("full/logits_zrandom", "full/r_loss_zrandom", "full/grad_global_norm"),
    *("train/loss", "train/grad_global_norm", "train/lr"),
)
CHECKPOINT = "tiny_drums_2bar_nade"
OF_NOTES = ("pitch", "velocity", "quantizedStartStep")


def main(recordings: Path) -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    (GOLDEN / CHECKPOINT).mkdir(parents=True)
    for name in ("groove_vars", "groove_io"):
        with np.load(recordings / f"tf/{name}.npz") as arrays:
            kept = arrays.files if name == "groove_vars" else OF_TENSORFLOW
            np.savez_compressed(GOLDEN / name, **{key: arrays[key] for key in kept})
    for path in (recordings / "js" / CHECKPOINT).iterdir():
        if path.name != "expected.json":
            shutil.copyfile(path, GOLDEN / CHECKPOINT / path.name)
            continue
        expected = json.loads(path.read_text())
        for name in ("inputs_note_sequences", "decoded_note_sequences_qpm120"):
            for sequence in expected[name]:
                notes = sequence["notes"]
                sequence["notes"] = [{k: n[k] for k in OF_NOTES if k in n} for n in notes]
        text = json.dumps(expected, separators=(",", ":"))
        (GOLDEN / CHECKPOINT / "expected.json").write_text(text.replace("],[[", "],\n[[") + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
