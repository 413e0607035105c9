import sys

from opencode_actors.cli.main import main

sys.exit(main())
