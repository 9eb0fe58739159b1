// Tables that sort by a click on a heading, and filter by words. Without this script they are read as they stand.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  if (rows.length < 2) continue;
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.order ?? cell.textContent;
    return heads[column].classList.contains("text") ? text : text === "" ? null : Number(text.replaceAll(",", ""));
  };
  const compare = (one, other) =>
    typeof one === "string" ? one.localeCompare(other, undefined, { numeric: true }) : one - other;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isText = head.classList.contains("text"), before = head.dataset.sorted;
      const sign = (before ? before === "down" : isText) ? 1 : -1;
      const values = new Map(rows.map((row) => [row, value(row, column)]));
      rows.sort((a, b) => {
        const one = values.get(a), other = values.get(b);
        if (one === null || other === null) return (one === null) - (other === null);
        return sign * compare(one, other);
      });
      heads.forEach((own) => { delete own.dataset.sorted; own.removeAttribute("aria-sort"); });
      head.dataset.sorted = sign > 0 ? "up" : "down";
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...rows);
    });
  });
  if (rows.length < 8) continue;
  const line = document.createElement("div"), input = document.createElement("input"), count = document.createElement("span");
  line.className = "filter";
  input.type = "search";
  input.placeholder = "show rows with these words";
  input.setAttribute("aria-label", "show rows with these words");
  const texts = new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]));
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  };
  input.addEventListener("input", filter);
  line.append(input, count);
  table.parentElement.before(line);
  filter();
}
