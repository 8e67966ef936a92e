"""python3 -m fetopo.cli"""

from fetopo.cli import main

main()
