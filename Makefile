# `make demo` and `make test` are all a newcomer needs; both make .venv first.
PYTHON ?= python3
DEMO_TIME ?= 2m
DEMO_RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)
BIN := .venv/bin

.PHONY: demo demo-caption test test-slow test-sanitized fuzz lint format clean help

help:
	@echo "make demo       train about two minutes on Python's own source code and sample from the result"
	@echo "make demo-caption  draw scenes, train a captioner on them for two minutes, and describe new ones"
	@echo "make test       the test suite (about 5 minutes on 2 cores)"
	@echo "make test-slow  the checks that take longer, and those that need UNROLLED_DATA"
	@echo "make test-sanitized  the engine's tests with its C under gcc's address and undefined-behaviour sanitizers"
	@echo "make fuzz       five minutes of damaged runs and checkpoints, each of which must be a clear error"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff put the code in order"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unrolled needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: .venv/installed
	$(BIN)/unrolled train lm --max-time $(DEMO_TIME) --eval-every 400 --sample-every 200 --val-tokens 50000 --out $(DEMO_RUN)
	@echo
	@echo '--- the final sample: $(BIN)/unrolled sample $(DEMO_RUN) --prime "def " --temperature 0.6 ---'
	@$(BIN)/unrolled sample $(DEMO_RUN) --prime "def " --length 700 --temperature 0.6 --seed 7
	@echo
	@echo "What to try next:"
	@echo "  $(BIN)/unrolled sample $(DEMO_RUN) --prime 'class ' --temperature 1.0 --count 3"
	@echo "  $(BIN)/unrolled train lm --resume $(DEMO_RUN) --max-time 10m       # continue training"
	@echo "  $(BIN)/unrolled train lm --data YOUR.txt --cell gru --max-time 5m  # your text, another cell"
	@echo "  $(BIN)/unrolled info $(DEMO_RUN)"

# No photographs with captions can be had from a package, so the demo draws its own scenes.
SCENES := runs/scenes
CAPTION_RUN := runs/caption-$(shell date +%Y%m%d-%H%M%S)
demo-caption: .venv/installed
	@test -d $(SCENES) || $(BIN)/unrolled data scenes $(SCENES) --count 1500
	@test -d $(SCENES)-new || $(BIN)/unrolled data scenes $(SCENES)-new --count 6 --seed 2
	$(BIN)/unrolled train caption --data $(SCENES)/captions.jsonl --min-count 1 --hidden-size 256 --embedding-size 128 \
		--batch-size 16 --learning-rate 0.002 --max-time $(DEMO_TIME) --eval-every 75 --sample-every 75 --out $(CAPTION_RUN)
	@echo
	@echo '--- $(BIN)/unrolled caption $(CAPTION_RUN) $(SCENES)-new/images ---'
	@$(BIN)/unrolled caption $(CAPTION_RUN) $(SCENES)-new/images
	@$(BIN)/unrolled caption $(CAPTION_RUN) $(SCENES)-new/images/scene-00000.png --attention $(CAPTION_RUN)/attention.png \
		--tree $(CAPTION_RUN)/tree.svg > $(CAPTION_RUN)/caption.txt
	@$(BIN)/unrolled inspect captions $(CAPTION_RUN) --out $(CAPTION_RUN)/captions.html
	@echo
	@echo "What to look at: $(SCENES)-new/images, $(CAPTION_RUN)/captions.html, attention.png and tree.svg"
	@echo "What to try next:"
	@echo "  $(BIN)/unrolled train caption --data $(SCENES)/captions.jsonl --model show-and-tell --max-time 2m"
	@echo "  $(BIN)/unrolled train caption --data YOUR-CAPTIONS --images YOUR-PICTURES   # docs/captioning.md"

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow -o faulthandler_timeout=14400

# The sanitizers' libraries must be loaded before Python's own; what Python itself leaks is not looked at.
test-sanitized: .venv/installed
	CC="gcc -fsanitize=address,undefined -fno-sanitize-recover=undefined -g" \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0 \
	$(BIN)/python -m pytest --numprocesses 2 tests/unroll/test_products.py tests/unroll/test_unroll.py \
		tests/unroll/test_planned.py tests/decoding
	$(BIN)/python -m pytest -m slow tests/slow/test_threads.py

# Damages runs in every way it can think of; prints the number of the attempt that is answered by a crash.
FUZZ_SECONDS ?= 300
fuzz: .venv/installed
	$(BIN)/python -m tests.training.fuzz --seconds $(FUZZ_SECONDS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
