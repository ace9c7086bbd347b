"""What imports what, beyond the rules that import-linter checks."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_no_module_imports_itself_by_way_of_others() -> None:
    """So there is an order to read them in, and an import inside a function is there for speed alone."""
    graph = grimp.build_graph("dags", "pipeline", "vae_core", exclude_type_checking_imports=True)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert list(TopologicalSorter(imported).static_order())  # raises CycleError, naming the modules
