// The search field: shows the rows that have all of its words. Without scripts there is no field, and all rows are shown.
const field = document.querySelector(".search");
if (field) {
  const rows = [...document.querySelectorAll(".pair, .row:not(.pair .row)")].map(row => [row, row.textContent.toLowerCase()]);
  field.hidden = false;
  field.addEventListener("input", event => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    field.querySelector("output").textContent = `${shown} of ${rows.length}`;
  });
}
