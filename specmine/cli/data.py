"""specmine data"""

from typing import Annotated

import typer

from specmine.cli.options import AsJson
from specmine.cli.screen import answer, answer_json

app = typer.Typer(help="List the known data sets, or describe one.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_names(json: AsJson = False) -> None:
    """Print the names of the known data sets, and whether a network comes with each."""
    from specmine.data import card_names, read_card

    cards = [read_card(name) for name in card_names()]
    if json:
        answer_json([card.model_dump(mode="json") for card in cards])
        return
    for card in cards:
        network = "with a network" if card.model else "needs --model"
        answer(f"{card.name:<14} {card.samples:>6} samples  {len(card.classes):>3} classes  {network:<14}  {card.title}")


@app.command("describe")
def describe(
    name: Annotated[str, typer.Argument(metavar="DATA", help="A known data set.", show_default=False)],
    json: AsJson = False,
) -> None:
    """Print the card of a data set: source, licence, shapes, splits, input domain."""
    from specmine.data import read_card

    card = read_card(name).model_dump(mode="json")
    if json:
        answer_json(card)
        return
    for key, value in card.items():
        answer(f"{key:<12} {value}")
