"""`python -m n2n_deploy` is `n2n-deploy`."""

from n2n_deploy.cli import main

main()
