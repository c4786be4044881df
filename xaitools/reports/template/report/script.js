const CONFIG = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "" };
for (const place of document.querySelectorAll("div.plot")) {
  const { data, layout } = JSON.parse(place.querySelector("script").textContent);
  place.style.height = `${layout.height ?? 450}px`;
  Plotly.newPlot(place, data, layout, CONFIG);
}
const button = document.getElementById("show-code");
button.addEventListener("click", () => {
  const show = button.getAttribute("aria-pressed") === "false";
  button.setAttribute("aria-pressed", String(show));
  button.textContent = show ? "hide code" : "show code";
  for (const block of document.querySelectorAll("details.code")) block.open = show;
});
