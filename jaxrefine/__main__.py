"""``python -m jaxrefine`` is ``jaxrefine``."""

from jaxrefine.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
