"""Which share of a model's requests is logged, and where to."""

import pytest

from servingd.config.request_log import LoggingConfig, PerTaskSampling
from servingd.errors import InvalidConfig


def test_the_first_task_that_fits_decides_the_rate():
    config = LoggingConfig(
        filename_prefix="/logs/m",
        sampling_rate=0.1,
        per_task=(
            PerTaskSampling(dc="x", sampling_rate=0.2),
            PerTaskSampling(task_index=3, sampling_rate=0.3),
            PerTaskSampling(dc="y", task_index=4, sampling_rate=0.4),
        ),
    )
    assert config.rate() == 0.1
    assert config.rate("x", 3) == 0.2
    assert config.rate("z", 3) == 0.3
    assert config.rate("y", 4) == 0.4
    assert config.rate("y", 5) == 0.1


def test_an_entry_for_every_task_replaces_the_rate():
    everywhere = (PerTaskSampling(sampling_rate=0.0),)
    config = LoggingConfig(filename_prefix="/l", sampling_rate=1.0, per_task=everywhere)
    assert config.rate() == 0.0


@pytest.mark.parametrize("prefix", ["m", "./m", "~/m", "gs://bucket/m", "/m\0n"])
def test_files_have_an_absolute_path(prefix):
    with pytest.raises(InvalidConfig, match=r"filename_prefix: expected an absolute path, got "):
        LoggingConfig(filename_prefix=prefix)


def test_a_sample_needs_a_place():
    with pytest.raises(InvalidConfig, match="since requests are sampled"):
        LoggingConfig(per_task=(PerTaskSampling(dc="x", sampling_rate=0.5),))
    assert LoggingConfig().rate() == 0.0


def test_there_is_one_type_of_log():
    assert LoggingConfig(type="tfrecord") != LoggingConfig(type="")
    with pytest.raises(InvalidConfig, match=r"^log_collector_config\.type: expected tfrecord or "):
        LoggingConfig(type="recordio")
