const button = document.getElementById("show-code");
button.addEventListener("click", () => {
  const show = button.getAttribute("aria-pressed") === "false";
  button.setAttribute("aria-pressed", String(show));
  button.textContent = show ? "hide code" : "show code";
  for (const block of document.querySelectorAll("details.code")) block.open = show;
});
