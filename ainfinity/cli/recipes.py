"""`ainfinity recipes`: what can be launched by name."""

from __future__ import annotations

from ainfinity.cli.output import say, write, write_json, write_table
from ainfinity.core.constants import EXIT_OK
from ainfinity.schema.job_file import load_recipe, recipe_names


def show_recipes(name: str, *, as_json: bool) -> int:
    """List the ready recipes, or write the file of one."""
    if name:
        recipe = load_recipe(name)
        if as_json:
            write_json(recipe)
        else:
            write(recipe.text.rstrip("\n"))
            say(f"Launch it: `ainfinity launch {name} data=FILE`, with any other changes as key=value.")
        return EXIT_OK
    found = [load_recipe(each) for each in recipe_names()]
    if as_json:
        write_json(found)
    else:
        rows = [(recipe.name, str(recipe.recipe.get("model", "-")), recipe.summary) for recipe in found]
        write_table(("NAME", "MODEL", "WHAT FOR"), rows)
        say("`ainfinity recipes NAME` writes one of them.")
    return EXIT_OK
