"""What somebody who opens the dashboard wants to see first."""

from __future__ import annotations

import dataclasses

from hpsearch.dashboard.app import HOME
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.engine.place import Place, study_name
from hpsearch.engine.search_reader import choose_search, read_search, search_attrs


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstPage:
    """The page of a search's best family.

    Attributes:
        search: its name.
        family: the one with the best trial; before there is one, the first.
        path: on the server.
    """

    search: str
    family: str
    path: str


def first_page(storage: BrowsedStorage, place: Place, name: str | None) -> FirstPage | None:
    """The first page for a search: the one called `name`, or the one started last.

    Returns:
        None where there is no search yet, and none is asked for; or no study of it any more.

    Raises:
        SearchError: there is no search of that name.
    """
    searches = search_attrs(storage)
    if name is None and not searches:
        return None
    record = read_search(storage, place, choose_search(searches, place, name))
    if not record.families:
        return None
    leader = record.leader()
    family = record.families[0] if leader is None else leader.family
    study_id = storage.get_study_id_from_name(study_name(record.name, family))
    return FirstPage(search=record.name, family=family, path=f"{HOME}/studies/{study_id}")
