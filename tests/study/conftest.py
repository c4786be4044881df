import pytest

from xaitools.study.run import Run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out", study="test", parameters={}, seed=0)


@pytest.fixture
def recorded(run):
    """The numbers that the run has written: ``{(method, metric): value}``."""
    import csv

    def read():
        with (run.output_dir / "metrics.csv").open() as file:
            return {(row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}

    def finish_and_read():
        run.finish()
        return read()

    return finish_and_read
