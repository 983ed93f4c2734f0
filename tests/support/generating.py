"""Settings for tests with hypothesis."""

from hypothesis import HealthCheck, settings

# Tests of the same commit do the same: a failure of chance in CI helps nobody, nor does one that
# says no more than that the machine is busy.
steady = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
