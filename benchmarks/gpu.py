"""All about a GPU in one script of some six minutes: what is found, how fast, where an image's time goes, trainings.

    python -m benchmarks.gpu --json runs/bench/gpu.json         on a machine with a GPU
    python -m benchmarks.gpu --device cpu --small               a dry run

It makes its own photographs (1024 x 768 JPEGs of some 190 KB) and its own checkpoints, needs no data set, and no Ray
where there is none: then the processes that Ray would start are started here. Each table is printed and written as soon
as it is there; a section that fails is named and the next one goes on. --only names sections.
"""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.gpu_materials import Bench, machine, materials
from benchmarks.gpu_scoring import rates, same_ledger, stages, with_ray
from benchmarks.gpu_trainings import precisions, trainings

SECTIONS = (machine, materials, same_ledger, stages, rates, with_ray, trainings, precisions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", choices=("cuda:0", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny sizes, at which nothing is measured")
    parser.add_argument("--only", nargs="*", help="sections: " + ", ".join(section.__name__ for section in SECTIONS))
    parser.add_argument("--json", type=Path, default=Path("runs/bench/gpu.json"))
    parser.add_argument("--work", type=Path, help="a folder that keeps photographs and checkpoint for another call")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory(prefix="raylearn-gpu-", ignore_cleanup_errors=True) as name:
        bench = Bench(options.device, options.small, options.work or Path(name), {}, options.json)
        for section in SECTIONS:
            needed = section in (machine, materials)
            if options.only and section.__name__ not in options.only and not needed:
                continue
            start = time.perf_counter()
            try:
                section(bench)
            except Exception:
                traceback.print_exc()
                failed.append(section.__name__)
            print(f"--- {section.__name__}: {time.perf_counter() - start:.1f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
