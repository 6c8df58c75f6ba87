import sys

# msgspec takes two functions from typing_extensions where that is installed, and the same ones from typing where it is
# not. Doing without saves a fifth of the time a node takes to start, and a run starts a dozen.
sys.modules["typing_extensions"] = None  # type: ignore[assignment]

from apps.runtime.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
