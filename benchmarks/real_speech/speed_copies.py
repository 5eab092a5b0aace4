"""The training recordings of AudioFolders once more, played slower and faster: an AudioFolder of its own, for cached encoder states.

    python -m benchmarks.real_speech.speed_copies speech/en/kathleen_arctic speech/en/librispeech_train_clean_3spk --output-dir speech/more/en_speed

Speed perturbation (Ko et al. 2015) by factors 0.9 and 1.1, pitch included. Copies of more than 30 s are left out. A recipe that
trains without a cache has `augmentation.speed_factors` instead.
"""

import argparse
import csv
import io
from pathlib import Path

import soundfile
from tqdm import tqdm

from modeling_slam_asr.projector_slam_asr import ENCODER_SECONDS
from trainers.data.augment import change_speed
from trainers.data.prepare import prepare
from trainers.data.rows import read_audio
from trainers.data.spec import DataSpec
from trainers.files import write_text
from trainers.sound import RATE

COLUMNS = ("file_name", "transcription", "split", "duration")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, help="AudioFolders with a split train")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--factors", nargs="+", type=float, default=[0.9, 1.1])
    arguments = parser.parse_args()
    clips = arguments.output_dir / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    seconds = 0.0
    for folder in arguments.datasets:
        rows = prepare([DataSpec(dataset=str(folder), split="train")], "train", quiet=True)[0]
        for number, row in enumerate(tqdm(rows, desc=folder.name, unit="utt")):
            for factor in arguments.factors:
                wave = change_speed(read_audio(row), factor)
                length = len(wave) / RATE
                if length <= ENCODER_SECONDS:
                    path = clips / f"{folder.name}-{number:05d}-{factor:g}.flac"
                    soundfile.write(path, wave, RATE)
                    writer.writerow((f"clips/{path.name}", row["transcript"], "train", f"{length:.2f}"))
                    seconds += length
    write_text(arguments.output_dir / "metadata.csv", table.getvalue())
    print(f"{seconds / 3600:.2f} hours in {arguments.output_dir}")


if __name__ == "__main__":
    main()
