"""How the summary page of a quiz looks."""

STYLE = """
:root { --ink: #1d232b; --soft: #5b6673; --line: #d9dee5; --paper: #fff; --ground: #f3f5f8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main, header > div { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { background: #16202c; color: #fff; padding: 18px 0; }
header h1 { font-size: 22px; margin: 0; overflow-wrap: anywhere; } header p { margin: 4px 0 0; color: #c7d0db; }
.notice { background: #fff3cd; border-bottom: 1px solid #e6d28a; padding: 8px 0; text-align: center;
  font-weight: 600; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 18px 0; font-size: 14px; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px;
  margin: 0 0 22px; overflow-x: auto; }
h2 { font-size: 18px; margin: 0 0 10px; } h3 { font-size: 14px; color: var(--soft); margin: 14px 0 6px; }
svg { width: 100%; height: auto; display: block; font-family: inherit; } section > svg { min-width: 560px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 14px; }
.figure { border-left: 5px solid; padding: 2px 0 2px 14px; }
.figure b { font-size: 30px; line-height: 1.2; display: block; }
.figure span { color: var(--soft); font-size: 13px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 26px; } .two svg { max-width: 380px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin-top: 12px; }
td, th { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
th { font-weight: 600; }
.confusion { width: auto; } .confusion td, .confusion th { padding: 6px 14px; border: 1px solid var(--line); }
.confusion td { text-align: center; min-width: 64px; }
.key { list-style: none; padding: 0; margin: 8px 0 0; display: flex; flex-wrap: wrap; gap: 4px 18px;
  font-size: 13px; color: var(--soft); }
.key i { width: 12px; height: 12px; display: inline-block; border-radius: 2px; margin-right: 6px;
  vertical-align: -1px; }
.case img { width: 72px; height: 72px; display: block; background: #000; border-radius: 4px; }
.soft { color: var(--soft); font-size: 13px; }
footer { color: var(--soft); font-size: 13px; padding: 0 0 30px; }
@media (max-width: 700px) { .three, .two { grid-template-columns: 1fr; } }
"""
