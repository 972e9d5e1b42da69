/** The chosen theme, set before anything is painted; a module would come too late. */
{
  const chosen = localStorage.getItem("lumina.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
