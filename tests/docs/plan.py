"""How each fenced block of a page is tested. A block that no table names is run by tests/docs/test_blocks.py.

Tables name a block by its page, its kind and a part of its text (see `Block.named`).
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, Mapping[str, str]]  # page -> name of a block -> what the table says

_README = "tests/contracts/test_readme.py::test_a_"
_BATCH = "tests/batch/test_page.py::test_"
_BENCH = "tests/cli/test_bench.py::test_the_"
_FIRST = "tests/contracts/test_first_change.py::test_a_walk_through_leads_where_it_says"
_KIT = "tests/kit/test_class.py::test_a_class_without_a_network"
_SERVE = "tests/serve/protocol/test_page.py::test_"
_TAPS = "tests/look/test_taps_page.py::test_the_"
_EXAMPLES = "tests/examples/test_examples.py::test_"

# The test that runs the block, or compares it with what it shows.
TESTED_BY: Table = {
    "README.md": {
        "console": f"{_README}command_does_what_the_readme_shows",
        "sh": f"{_README}command_does_what_the_readme_shows",
        "python": f"{_README}program_does_what_the_readme_shows",
        "text": f"{_README}program_does_what_the_readme_shows",
    },
    "docs/batch.md": {
        "json": f"{_BATCH}the_answers_are_those_that_the_page_shows",
        "jsonl": f"{_BATCH}the_answers_are_those_that_the_page_shows",
        "console": f"{_BATCH}the_answers_are_those_that_the_page_shows",
        "sh printf": f"{_BATCH}its_programs_run",
        "python answers.jsonl": f"{_BATCH}its_programs_run",
        "python Answering": f"{_BATCH}its_programs_run",
    },
    "docs/bench.md": {
        "sh": f"{_BENCH}commands_of_the_page_do_what_it_says",
        "text generates": f"{_BENCH}text_of_the_page_has_the_form_of_what_is_printed",
        "text beside f32": f"{_BENCH}commands_of_the_page_do_what_it_says",
        "python pophood.benchmark": f"{_BENCH}program_of_the_page_runs",
        "python Comparison": f"{_BENCH}program_about_quality_on_the_page_runs",
    },
    "docs/cli.md": {"text": "tests/contracts/test_docs.py::test_the_command_page_is_what_the_program_writes"},
    "docs/course.md": {
        "markdown": "tests/docs/test_blocks.py::test_the_page_of_a_course_that_is_shown_is_one"
    },
    "docs/first-change.md": {"python": _FIRST, "sh": _FIRST},
    "docs/formats.md": {
        "python": "tests/families/test_adding_one.py::test_the_example_computes_what_transformers_computes"
    },
    "docs/grammar.md": {
        "sh pophood run": "tests/grammar/test_page.py::test_its_commands_run",
        "sh pophood batch": "tests/grammar/test_page.py::test_its_commands_run",
        "python": "tests/grammar/test_page.py::test_its_programs_run",
    },
    "docs/kernels.md": {"python": "tests/test_sequences.py::test_the_code_of_the_page_runs"},
    "docs/kit.md": {"sh": _KIT},
    "docs/look.md": {"python": "tests/contracts/test_look_page.py::test_the_first_program_runs"},
    "docs/serve.md": {
        "console": "tests/serve/test_cache_dir.py::test_the_example_of_the_page_says_what_the_page_shows",
        "sh curl -s $POPHOOD_URL/v1": f"{_SERVE}an_example_works_as_it_is_printed",
        "python": f"{_SERVE}an_example_works_as_it_is_printed",
        'json "error"': f"{_SERVE}an_example_works_as_it_is_printed",
        'json "tools"': f"{_SERVE}the_call_that_is_shown_is_one_of_the_function",
        'json "tool_calls"': f"{_SERVE}the_call_that_is_shown_is_one_of_the_function",
        "sh lm_eval": "tests/clients/test_clients.py::test_lm_eval_scores_with_our_tokenizer_routes",
    },
    "docs/several-machines.md": {
        "sh --nnodes 2": "tests/train/test_process_group.py::test_two_nodes_are_as_two_processes"
    },
    "docs/studio.md": {
        "json": "tests/hub/test_counted.py::test_connections_to_other_machines_are_told_with_their_purpose"
    },
    "docs/taps.md": {
        "python lm.trace": f"{_TAPS}code_runs",
        "python Edit": f"{_TAPS}code_of_edits_runs",
        "text": f"{_TAPS}drawing_has_every_tap",
    },
    "docs/tune.md": {
        "sh --from-scratch": "tests/cli/test_tune.py::test_from_scratch_is_a_model_that_run_opens",
        "sh --device": "tests/cli/test_tune.py::test_a_device_that_is_not_here_gets_one_line",
        "python from_scratch": "tests/train/test_from_scratch.py::test_the_page_has_a_program",
    },
    "docs/tutorials/attention-picture.md": {
        "console": f"{_EXAMPLES}a_program_prints_what_its_tutorial_shows"
    },
    "docs/tutorials/batch-of-prompts.md": {"console": f"{_EXAMPLES}a_program_prints_what_its_tutorial_shows"},
    "docs/tutorials/chat-loop.md": {"console": f"{_EXAMPLES}chat_loop"},
    "docs/tutorials/export-to-gguf.md": {
        "console": f"{_EXAMPLES}export_to_gguf_prints_what_its_tutorial_shows"
    },
    "docs/tutorials/next-token-table.md": {"console": f"{_EXAMPLES}a_program_prints_what_its_tutorial_shows"},
}

# Blocks that no test can run, with the reason.
NOT_RUN: Table = {
    ".github/ISSUE_TEMPLATE/bug.md": {
        "sh": "is empty: whoever reports a bug fills it in",
        "text": "is empty: whoever reports a bug fills it in",
    },
    "docs/architecture.md": {"text": "is a drawing; what may import what is tested by tests/contracts"},
    "docs/batch.md": {"sh ray start": "needs a second machine; tests/batch/test_ray.py has a cluster of one"},
    "docs/formats.md": {"console": "fetches 238 MB and asks a question; tests/hub has a stand-in for it"},
    "docs/grammar.md": {"sh pip install": "needs a package index"},
    "docs/kernels.md": {"text": "is a formula or a drawing of memory"},
    "docs/peers.md": {
        "sh benchmarks/peers.py": "needs OpenVINO in an environment of its own, and an idle machine",
        "sh only.txt": "makes that environment and three others: gigabytes from package indexes",
    },
    "docs/taps.md": {
        "sh transformer_lens": "makes an environment from a package index; its numbers are stored"
    },
    "docs/tune.md": {
        "sh pip install": "needs a package index",
        'python device="cuda"': "needs a GPU; the command above it is refused by name without one",
    },
}

# Blocks that `make test-full` runs, and `make test` does not.
LONG: Table = {
    "docs/batch.md": {"python RayLines": "starts Ray"},
    "docs/course.md": {"sh --from 12": "the whole course twice", "sh --teacher": "answers every page"},
    "docs/kernels.md": {"sh cmake": "compiles the engine"},
    "docs/several-machines.md": {"sh --nproc-per-node 2": "trains"},
    "docs/tune.md": {"sh": "trains", "python": "trains"},
    "docs/tutorials/tune-an-adapter.md": {"sh": "trains"},
}

# Blocks that are files: what the other blocks of the page read.
FILES: Table = {"docs/course.md": {"json": "class/ana.json"}}

# What is written differently for a test: what takes minutes takes steps, and a port may be in use.
INSTEAD: Mapping[str, Mapping[str, str]] = {  # page -> text -> its replacement
    "docs/batch.md": {  # two processors, of which Ray keeps one for reading
        '"threads": 2': '"threads": 1',
        "num_cpus=2": "num_cpus=1",
        "size=2": "size=1",
    },
    "docs/serve.md": {"--ollama-port 11434": "--ollama-port 0"},
    "docs/several-machines.md": {
        "--steps 200": "--steps 2 --length 64 --batch-size 1",
        "--method full": "--steps 2 --length 64 --batch-size 1 --method full",
    },
    "docs/tune.md": {
        "pophood tune notes.txt\n": "pophood tune notes.txt --steps 2 --length 64 --batch-size 1\n",
        "--steps 200": "--steps 2 --length 64 --batch-size 1 --overwrite",
        'pophood run "Dear diary," --adapter notes-lora:0.5': (
            'cp -r notes-lora style-lora\npophood run "Dear diary," --adapter notes-lora:0.5'
        ),
        "minutes=5": "steps=2, length=64, overwrite=True",
    },
}
