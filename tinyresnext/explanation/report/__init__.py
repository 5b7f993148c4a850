"""The page: an explanation as one HTML file that needs nothing but a browser.

`packed` turns the maps into small whole numbers, `page` fills the template. `report.html`,
`report.css`, `maps.js` (draws) and `report.js` (what a person chooses) are put into the page as
they are.
"""
