# Everything a contributor runs here. Each target makes what it needs first, inside this folder.
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PYTHON ?= python3
PORT ?= 8000

.PHONY: help demo naive test programs mutants mutations bench docs docs-serve lint format lock outdated clean

help:  ## List the targets
	@awk -F ':.*## *' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: demo/pyproject.toml  ## Generate an app with the defaults (kept if it is there) and serve it, in debug
	@echo "The demo is in demo/. To test, audit or change it: cd demo, then make test, make audit …"
	@$(MAKE) --no-print-directory -C demo run PORT=$(PORT)

naive: demo/pyproject.toml  ## Serve the naive app, which has every hole, on this machine only (PORT=8001)
	@$(MAKE) --no-print-directory -C demo .venv/installed
	@demo/$(BIN)/python -m tests.naive $(if $(filter 8000,$(PORT)),8001,$(PORT))

test: programs  ## Generate apps with all options, attack them, run their own suites
	$(BIN)/pytest -n auto

programs:  ## Install what the tests need besides Python, where this may; else say what to install
	@$(PYTHON) -m tests.programs
	@$(MAKE) --no-print-directory $(VENV)/installed

mutants: $(VENV)/installed  ## Take out each step in turn, and see that a test and the audit notice
	MUTANTS=all $(BIN)/pytest -n auto tests/test_mutations.py

mutations: $(VENV)/installed  ## Print the table of them: what a person does, and which test notices
	@$(BIN)/python -m tests.test_mutations

bench: $(VENV)/installed  ## Measure requests, a start, generating, an audit and growth, into docs/performance.md (RUNS=15)
	@$(BIN)/python -m tests.bench $(RUNS)

SITE := NO_MKDOCS_2_WARNING=1 SITE_PYTHON=$(VENV)/site/$(notdir $(BIN))/python $(BIN)/python -m mkdocs
docs: $(VENV)/site/installed  ## Build the documentation into site/, and stop at a link that leads nowhere
	@$(SITE) build

docs-serve: $(VENV)/site/installed  ## Serve the documentation at port 8000 (PORT=8001), built again at each change
	@$(SITE) serve --dev-addr 127.0.0.1:$(PORT)

lint: $(VENV)/installed  ## Check the template's own Python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed  ## Fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet --upgrade
APP := {{cookiecutter.project_slug}}
lock: $(VENV)/installed  ## Take the newest versions that pyproject.toml allows, here and in the generated app
	$(LOCK) --group dev -o requirements-dev.txt
	rm -rf $(VENV)/template $(VENV)/with $(VENV)/without
	$(BIN)/python -m tests.clean_copy $(VENV)/template
	HOME=$(CURDIR)/$(VENV) $(BIN)/cookiecutter $(VENV)/template --no-input -o $(VENV) project_slug=with
	HOME=$(CURDIR)/$(VENV) $(BIN)/cookiecutter $(VENV)/template --no-input -o $(VENV) project_slug=without accounts=no
	$(LOCK) $(VENV)/with/pyproject.toml -o "$(APP)/requirements.txt"
	$(LOCK) --group $(VENV)/with/pyproject.toml:s3 -c "$(APP)/requirements.txt" -o "$(APP)/requirements-s3.txt"
	$(LOCK) --group $(VENV)/with/pyproject.toml:dev -c "$(APP)/requirements.txt" -c "$(APP)/requirements-s3.txt" -o "$(APP)/requirements-dev.txt"
	$(LOCK) $(VENV)/without/pyproject.toml -c "$(APP)/requirements.txt" -o "$(APP)/requirements-no-accounts.txt"

outdated: $(VENV)/installed  ## Print the packages that have newer versions, and which images and actions are pinned
	@$(BIN)/pip list --outdated --disable-pip-version-check
	@grep -rhoE '(FROM|image:|uses:) .*' .github "$(APP)/.github" "$(APP)/deploy" | sort -u

clean:  ## Remove the virtual environment, the demo, the site and the caches
	rm -rf $(VENV) demo site .pytest_cache .ruff_cache

demo/pyproject.toml: | $(VENV)/installed
	@echo "Generating an app with the defaults into demo/"
	@$(BIN)/python -m tests.clean_copy $(VENV)/template
	@SECURE_FLASK_DEMO=1 HOME=$(CURDIR)/$(VENV) $(BIN)/cookiecutter $(VENV)/template --no-input project_slug=demo

# The reference is written by the code of the app, which needs its packages.
$(VENV)/site/installed: $(VENV)/installed $(APP)/requirements.txt
	@$(BIN)/uv venv --quiet --clear $(VENV)/site
	@$(BIN)/uv pip install --quiet --require-hashes --python $(VENV)/site -r "$(APP)/requirements.txt"
	@touch $@

$(VENV)/installed: requirements-dev.txt
	@$(PYTHON) -m tests.programs venv
	@echo "Making $(VENV) and installing the packages of requirements-dev.txt:"
	@s=0; while sleep 3 && kill -0 $$$$ 2>/dev/null; do s=$$((s + 3)); echo "  $$s s"; done & \
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
