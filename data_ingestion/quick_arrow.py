"""Start PyArrow without pandas.

On meeting its first Python list PyArrow imports pandas, 0.2 s and 50 MB, only to see whether that is a Series. It looks
once, and remembers when there is none; what does need pandas, such as `to_pandas`, looks again.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "pandas":
            raise ImportError("not now")
        return None


def spare_pandas() -> None:
    """Let PyArrow look for pandas now, and find none; without effect where pandas has been imported."""
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
