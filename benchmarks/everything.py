"""All benchmarks, one table.

python benchmarks/everything.py            measure and compare with what is kept in benchmarks/results
python benchmarks/everything.py --keep     and keep it
"""

from __future__ import annotations

import bench_people
import bench_resume
import bench_steps
from measuring import Line, run


async def main() -> list[Line]:
    return [*await bench_steps.main(), *await bench_resume.main(), *await bench_people.main()]


if __name__ == "__main__":
    run(main, "everything")
