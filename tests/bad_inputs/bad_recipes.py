"""Bad recipes and overrides."""

from __future__ import annotations

from case import Bad, bad, fifo

TRAIN = "train --out never --config"
SET = "train --config recipe.yaml --out never --set"
X = f"{TRAIN} x.yaml"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))

RECIPES: dict[str, Bad] = {
    "not there": bad(f"{TRAIN} nowhere.yaml", "No recipe at nowhere.yaml", "check --config"),
    "a folder": bad(f"{TRAIN} model", "model cannot be read", "check --config"),
    "a pipe": bad(X, "x.yaml cannot be read (a pipe or a device", x__yaml=fifo),
    "no YAML": bad(X, "x.yaml cannot be read as YAML", "line 1", x__yaml="a: ["),
    "a tab": bad(X, "x.yaml cannot be read as YAML", "line 2", x__yaml="model:\n\tname: model\n"),
    "a tower of brackets": bad(X, "x.yaml cannot be read as YAML: it nests too deep", x__yaml="a: " + "[" * 5000),
    "Latin-1": bad(X, "x.yaml cannot be read as YAML: it is not UTF-8", x__yaml=b"model: {name: \xe9}"),
    "an object of Python": bad(X, "x.yaml cannot be read as YAML", x__yaml="model: !!python/object/apply:os.getcwd []"),
    "itself": bad(
        X, "x.yaml cannot be read as YAML", "holds itself", x__yaml="model: &m {name: model, chat_template_kwargs: *m}"
    ),
    "aliases of aliases": bad(X, "x.yaml cannot be read as YAML: its aliases unfold to more than 100000", x__yaml=BOMB),
    "a list as a key": bad(X, "x.yaml cannot be read as YAML", "unhashable key", x__yaml="? [a, b]\n: 1"),
    "a list": bad(X, "x.yaml must hold sections", "not a list", x__yaml="- model"),
    "a word": bad(X, "x.yaml must hold sections", "not a str", x__yaml="model"),
    "a number for a section": bad(X, "x.yaml: 1 is 1", "keys should be strings", x__yaml="1: 2"),
    "section misspelt": bad(X, "x.yaml: unknown key 'modell': did you mean 'model'?", x__yaml="modell: {name: model}"),
    "section misspelt and empty": bad(X, "x.yaml: unknown key 'modell': did you mean 'model'?", x__yaml="modell:\n"),
    "section twice": bad(
        X,
        "x.yaml cannot be read as YAML: line 3: the key 'data' is given twice",
        "leave one",
        x__yaml="data: {}\nmodel: {}\ndata: {}\n",
    ),
    "key twice": bad(
        X, "x.yaml cannot be read as YAML: line 1: the key 'limit' is given twice", x__yaml="data: {limit: 1, limit: 2}"
    ),
    "key twice, quoted": bad(X, "the key 'limit' is given twice", x__yaml='data: {limit: 1, "limit": 2}'),
    "section of text": bad(X, "x.yaml: loss is 'dpo'", "a section with keys", x__yaml="loss: dpo"),
    "section switched off": bad(X, "x.yaml: peft is 'no'", "a section with keys", x__yaml="peft: no"),
    "key misspelt": bad(X, "unknown key 'data.trian': did you mean 'train'?", x__yaml="data: {trian: starter}"),
    "key misspelt and empty": bad(X, "unknown key 'data.trian': did you mean 'train'?", x__yaml="data:\n  trian:\n"),
    "trainer's key misspelt": bad(
        X, "unknown key 'learning_rte': did you mean 'learning_rate'?", x__yaml="train: {learning_rte: }"
    ),
    "adapter's key misspelt": bad(
        X, "unknown key 'lora_alhpa': did you mean 'lora_alpha'?", x__yaml="peft: {lora_alhpa: }"
    ),
    "loss's key misspelt": bad(X, "'dpo' has no hyperparameter 'betta'", x__yaml="loss: {betta: 1}"),
    "loss's key misspelt and empty": bad(X, "no hyperparameter 'betta'", x__yaml="loss:\n  betta:\n"),
    "in another section": bad(X, "did you mean 'loss.beta'?", x__yaml="train: {beta: 0.1}"),
    "no word for it": bad(
        X, "train: off is not a valid SaveStrategy", "select one of ['no'", x__yaml="train: {save_strategy: off}"
    ),
    "truth as a number": bad(X, "x.yaml: data.limit is 'yes'", "a valid integer", x__yaml="data: {limit: yes}"),
    "truth as a rate": bad(
        X, "x.yaml: train.learning_rate is 'true'", "a valid number", x__yaml="train: {learning_rate: true}"
    ),
    "truth as beta": bad(X, "x.yaml: loss: 'beta'", "not 'on'", x__yaml="loss: {beta: on}"),
    "text as a number": bad(X, "data.limit is 'many'", "a valid integer", x__yaml="data: {limit: many}"),
    "below its least": bad(X, "data.max_length is 1", "greater than or equal to 2", x__yaml="data: {max_length: 1}"),
    "a date that is none": bad(X, "x.yaml cannot be read as YAML", "month", x__yaml="model: {name: 2024-99-99}"),
    "a time of a word": bad(X, "x.yaml cannot be read as YAML", x__yaml="model: {name: !!timestamp x}"),
    "digits without end": bad(X, "cannot be read as YAML", "5000 digits", x__yaml=f"train: {{seed: {'9' * 5000}}}"),
    "a tag of Python": bad(X, "cannot be read as YAML", "tag", x__yaml="model: !!python/object/apply:os.getcwd []"),
    "a NUL in a path": bad(X, "line 2: a text has a NUL", "take it out", x__yaml='data:\n  train: "a\\0b.jsonl"'),
    "half a character in a path": bad(X, "line 1: a text has", x__yaml='data: {train: "\\ud800.jsonl"}'),
    "UTF-16": bad(X, "x.yaml cannot be read as YAML: it is not UTF-8", x__yaml="model: {name: x}".encode("utf-16")),
    "compiler that is none": bad(
        f"{SET} train.torch_compile=true --set train.torch_compile_backend=inductr",
        "Unknown torch_compile_backend 'inductr'",
        "did you mean 'inductor'?",
    ),
    "dropout nan": bad(f"{SET} peft.lora_dropout=.nan", "peft.lora_dropout is nan and must be a finite number"),
    "no rank": bad(f"{SET} peft.r=0", "peft.r is 0", "at least 1"),
    "no alpha": bad(f"{SET} peft.lora_alpha=-16", "peft.lora_alpha is -16", "at least 1"),
    "rank of a pattern": bad(f'{SET} peft.rank_pattern={{"q_proj":0}}', "peft.rank_pattern.q_proj is 0", "at least 1"),
    "alpha of a pattern nan": bad(f'{SET} peft.alpha_pattern={{"q_proj":.nan}}', "peft.alpha_pattern.q_proj is nan"),
    "all dropped": bad(f"{SET} peft.lora_dropout=1.0", "peft.lora_dropout is 1.0", "from 0 to below 1"),
    "dropout negative": bad(f"{SET} peft.lora_dropout=-0.1", "peft.lora_dropout is -0.1", "from 0 to below 1"),
    "epsilon infinite": bad(f"{SET} train.adam_epsilon=.inf", "adam_epsilon is inf", "from 0 up"),
    "momentum nan": bad(f"{SET} train.adam_beta1=.nan", "adam_beta1 is nan", "give a number"),
    "clipped at nan": bad(f"{SET} train.max_grad_norm=.nan", "max_grad_norm is nan", "from 0 up"),
    "evaluated never": bad(f"{SET} train.eval_steps=0", "eval_steps is 0", "above 0"),
    "evaluated after nan": bad(f"{SET} train.eval_delay=.nan", "eval_delay is nan", "from 0 up"),
    "alarm nan": bad(f"{SET} train.displacement_alarm=.nan", "displacement_alarm is nan", "or null"),
    "fetches nothing": bad(f"{SET} train.eval_accumulation_steps=0", "eval_accumulation_steps is 0", "or left out"),
    "empties never": bad(f"{SET} train.torch_empty_cache_steps=-1", "torch_empty_cache_steps"),
    "template multiplies": bad(
        f"{SET} model.chat_template=x.jinja",
        "the chat template fails at the conversation (it makes more than",
        "mend the template",
        x__jinja="{{ 'x' * 10**10 }}",
    ),
    "template raises to a power": bad(
        f"{SET} model.chat_template=x.jinja", "it makes more than", "mend the template", x__jinja="{{ 9**(9**9) }}"
    ),
    "template doubles": bad(
        f"{SET} model.chat_template=x.jinja",
        "it makes more than",
        x__jinja="{% set n = namespace(t='x') %}{% for _ in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}{{ n.t }}",
    ),
    "template doubles otherwise": bad(
        f"{SET} model.chat_template=x.jinja",
        "it makes more than",
        x__jinja="{% set n = namespace(t='x') %}{% for _ in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
    ),
    "template loops": bad(
        f"{SET} model.chat_template=x.jinja",
        "it takes more than",
        "mend the template",
        x__jinja="{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ),
    "template calls itself": bad(
        f"{SET} model.chat_template=x.jinja",
        "it takes more than",
        x__jinja="{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ),
    "template pads": bad(
        f"{SET} model.chat_template=x.jinja", "it makes more than", x__jinja="{{ 'x'.ljust(10**10) }}"
    ),
    "template centres": bad(
        f"{SET} model.chat_template=x.jinja", "it makes more than", x__jinja="{{ 'x' | center(10000000000) }}"
    ),
    "template formats": bad(
        f"{SET} model.chat_template=x.jinja", "it makes more than", x__jinja="{{ '%10000000000d' % 1 }}"
    ),
    "template range": bad(f"{SET} model.chat_template=x.jinja", "Range too big", x__jinja="{{ range(10**6) | list }}"),
    "draw backwards": bad(f"{SET} data.seed=-1", "data.seed is -1", "greater than or equal to 0"),
    "warm-up nan": bad(f"{SET} train.warmup_steps=.nan", "warmup_steps is nan", "from 0 up"),
    "logs backwards": bad(f"{SET} train.logging_steps=-2", "logging_steps is -2", "above 0"),
    "saves never": bad(f"{SET} train.save_steps=0", "save_steps is 0", "above 0"),
    "keeps nothing": bad(f"{SET} train.save_total_limit=0", "save_total_limit is 0", "at least 1"),
    "nan": bad(X, "loss", "beta", x__yaml="loss: {beta: .nan}"),
    "temperature 0": bad(X, "balance.temperature is 0", "greater than 0", x__yaml="balance: {temperature: 0}"),
    "unknown loss": bad(f"{SET} loss.name=dppo", "--set loss.name=dppo", "did you mean 'dpo'?"),
    "unknown weighting": bad(
        f"{SET} balance.weighting=ratoi",
        "balance.weighting is 'ratoi'",
        "'sigmoid', 'ratio', 'reversed', 'permuted' or 'constant'",
    ),
    "no value": bad(f"{SET} loss.beta", "--set loss.beta: write section.key=value"),
    "no section": bad(f"{SET} =3", "--set =3: write section.key=value"),
    "value no YAML": bad(f"{SET} loss.beta=[1", "--set loss.beta=[1: the value is not YAML", "quote it"),
    "override of no section": bad(f"{SET} balanse=", "--set balanse=: unknown key 'balanse': did you mean 'balance'?"),
    "override of no section's key": bad(f"{SET} balanse.scale=no", "--set balanse.scale=no: unknown key 'balanse'"),
    "override key twice": bad(f'{SET} data={{"limit":1,"limit":2}}', "--set data=", "the key 'limit' is given twice"),
    "two of one key, the last": bad(
        f"{SET} data.limit=3 --set data.limit=many", "--set data.limit=many: data.limit is 'many'"
    ),
    "two of one key, the word in both": bad(
        f"{SET} data.holdout=0 --set data.holdout=-1", "--set data.holdout=-1: data.holdout is -1"
    ),
    "one of two": bad(f"{SET} data.train=limit --set data.limit=0", "--set data.limit=0: data.limit is 0"),
    "into a value": bad(f"{X} --set model.name=model", "model is 3 in the recipe", x__yaml="model: 3"),
    "no template": bad(f"{SET} model.chat_template=no.jinja", "model.chat_template: no.jinja cannot be read"),
    "template a pipe": bad(f"{SET} model.chat_template=x.jinja", "x.jinja cannot be read (a pipe", x__jinja=fifo),
    "template Latin-1": bad(f"{SET} model.chat_template=x.jinja", "x.jinja is not UTF-8", x__jinja=b"{# \xe9 #}"),
    "template no Jinja": bad(
        f"{SET} model.chat_template=x.jinja", "is no Jinja template (line 1", "mend it", x__jinja="{% for %}"
    ),
    "template of another variable": bad(
        f"{SET} model.chat_template=x.jinja",
        "fails at the conversation",
        "mend the template",
        x__jinja="{{ turns[0].text }}",
    ),
    "template that refuses": bad(
        f"{SET} model.chat_template=x.jinja",
        "refuses the conversation (Roles!)",
        "mend the turns",
        x__jinja="{{ raise_exception('Roles!') }}",
    ),
    "template of nothing": bad(
        f"{SET} model.chat_template=x.jinja", "the chat template leaves it out", "give another", x__jinja="{{ '' }}"
    ),
    "template variable": bad(
        f'{SET} model.chat_template_kwargs={{"think":true}}', "has no variable 'think'", "leave it out"
    ),
    "out a file": bad("train --config recipe.yaml --out pairs.jsonl", "pairs.jsonl is a file", "choose another --out"),
    "out taken": bad("train --config recipe.yaml --out model", "model is not empty", "choose another --out"),
    "nothing to resume": bad(
        "train --config recipe.yaml --out never --resume", "no checkpoint to resume from", "leave --resume out"
    ),
    "no held-out pairs": bad(f"{SET} train.eval_strategy=epoch", "needs held-out pairs", "set data.eval"),
    "no such layer": bad(f"{SET} peft.target_modules=[nowhere]", "does not fit the model"),
    "layers by no pattern": bad(
        f"{SET} peft.target_modules=((",
        "The adapter does not fit the model: missing )",
    ),
    "layers replicated from nowhere": bad(f"{SET} peft.layer_replication=[[0,99]]", "does not fit the model: index"),
    "dry run, too": bad("train --dry-run --config x.yaml", "unknown key 'modell'", x__yaml="modell:\n"),
}
