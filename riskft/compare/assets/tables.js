"use strict";
// Sorts tables by a click on a header: by number if a cell has one (data-value), otherwise by text; gaps come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const given = cell.dataset.value;
        return { row, key: given === undefined ? cell.textContent.trim() : given === "" ? null : Number(given) };
      });
      keyed.sort(({ key: a }, { key: b }) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
        return descending ? -order : order;
      });
      body.append(...keyed.map(({ row }) => row));
    });
  });
}
