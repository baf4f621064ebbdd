# The verbs of the project. CI calls only these. Needs make, sh and a Python 3.11 or newer; all else is installed
# into environments of its own below this folder.
#
#   make PYTHON=/path/to/python3.13 test    choose the Python
#   make VENV=/some/where test              put the environments elsewhere

VENV = .venv
PYTHON =
P =
ARGS =

CANDIDATES = $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

.NOTPARALLEL:
.PHONY: help test demo lint types check fix bench fleet stream-deploy durable-streams docs docs-serve newcomer clean

help:
	@echo 'make test    the tests, on every CPython found  (ARGS="--only 3.12 -- -k drain")'
	@echo 'make demo    the demo service at work           (P=docs: analyse that folder)'
	@echo 'make lint    style and likely bugs'
	@echo 'make types   strict type checking'
	@echo 'make check   lint, types and test'
	@echo 'make fix     repair what lint can repair'
	@echo 'make bench   the measurements                   (ARGS: handed on)'
	@echo 'make fleet   workers and database attacked, 1 h (ARGS="--seconds 60 --seed 7", "--store sqlite")'
	@echo 'make stream-deploy  readers, servers replaced (ARGS="--kills 50 --seed 7")'
	@echo 'make durable-streams   the suite of the Durable Streams protocol and its JavaScript client; needs node and npm'
	@echo 'make docs    the site, into build/site, without a warning   (make docs-serve: while you write)'
	@echo 'make newcomer   a clean machine, and the README alone: how long, how many steps'
	@echo 'make clean   remove the environments and caches'

test: $(VENV)/.installed
	@exec $(VENV)/bin/python scripts/matrix.py $(ARGS)

# exec: Ctrl-C reaches the program itself, and make waits until it has drained.
demo: $(VENV)-demo/.installed
	@exec $(VENV)-demo/bin/lastcall demo $(P) $(ARGS)

lint: $(VENV)/.installed
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed
	@$(VENV)/bin/mypy

check: lint types test

fix: $(VENV)/.installed
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: $(VENV)/.installed
	@exec $(VENV)/bin/python -m bench $(ARGS)

# exec: Ctrl-C ends the attack, and the verdict is about what was done until then.
fleet: $(VENV)/.installed
	@exec $(VENV)/bin/python -m bench fleet $(ARGS)

stream-deploy: $(VENV)/.installed
	@exec $(VENV)/bin/python scripts/stream_deploy.py $(ARGS)

durable-streams: $(VENV)/.installed
	@exec $(VENV)/bin/python scripts/durable_streams.py $(ARGS)

docs: $(VENV)-docs/.installed
	@$(VENV)-docs/bin/python scripts/docs/diagrams.py
	@NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet
	@$(VENV)-docs/bin/python scripts/docs/check.py build/site

docs-serve: $(VENV)-docs/.installed
	@exec env NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs serve $(ARGS)

newcomer: $(VENV)/.installed
	@exec $(VENV)/bin/python scripts/newcomer.py $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-demo $(VENV)-docs $(VENV)-3.* .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find src tests scripts bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps: an environment is installed again only when pyproject.toml changed.
$(VENV)/.installed: pyproject.toml
	@$(call make_environment,$(VENV),dev)

$(VENV)-demo/.installed: pyproject.toml
	@$(call make_environment,$(VENV)-demo,demo)

$(VENV)-docs/.installed: pyproject.toml
	@$(call make_environment,$(VENV)-docs,docs)

# The first Python that really runs (a version manager's shim may exist and fail), is new enough, and can make
# environments (Debian ships that in a package of its own).
define make_environment
	set -e; found=; incomplete=; \
	for python in $(CANDIDATES); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$python; break; fi; \
		incomplete=$$python; \
	done; \
	if [ -z "$$found" ] && [ -n "$$incomplete" ]; then \
		echo "$$incomplete is new enough, but has no venv module. Install it (Debian: python3-venv)." >&2; exit 1; \
	elif [ -z "$$found" ]; then \
		echo "No Python 3.11 or newer found; tried:$(foreach p,$(CANDIDATES), $(p))." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	echo "installing into $(1) with $$found ..."; \
	"$(1)/bin/python" -c '' >/dev/null 2>&1 || "$$found" -m venv --clear "$(1)"; \
	"$(1)/bin/python" $(PIP_INSTALL) --editable '.[$(2)]'; \
	touch "$(1)/.installed"
endef
