package pin

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// defaultStep is how much deeper each level is indented where the file shows no other habit.
const defaultStep = 2

// plan returns the edits that make d say what the wanted pins say.
func (d *document) plan(wanted map[string]Pin) []edit {
	entries := make([]entry, len(d.records))
	for i, r := range d.records {
		entries[i] = r.entry
	}
	var edits, added []edit
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if i, ok := d.byKey[key]; ok {
			edits = append(edits, d.change(&d.records[i], wanted[key])...)
		} else {
			added = append(added, d.addPin(entries, wanted[key]))
		}
	}
	if len(added) > 0 {
		edits = append(edits, d.clear(&d.pins)...)
	}
	return append(edits, added...)
}

// addPin inserts a pin, with blank lines between it and the others if they have them.
func (d *document) addPin(entries []entry, p Pin) edit {
	line, col := d.place(&d.pins, entries, p.Reference)
	lines := p.lines(col, d.step())
	switch {
	case !d.spaced():
	case line < entries[0].line:
		lines = append(lines, "")
	default:
		lines = append([]string{""}, lines...)
	}
	return d.insert(line, lines...)
}

// spaced reports whether the first two pins have a blank line between them.
func (d *document) spaced() bool {
	if len(d.records) < 2 {
		return false
	}
	for line := d.records[0].last + 1; line < d.records[1].line; line++ {
		if isBlank(d.content(line)) {
			return true
		}
	}
	return false
}

// step is how much deeper than a pin its fields are indented.
func (d *document) step() int {
	if len(d.records) == 0 {
		return defaultStep
	}
	return d.records[0].fields[0].col - d.records[0].col
}

// place finds where a new key goes among the children of a mapping: the line that it is put behind,
// and its indentation.
func (d *document) place(parent *entry, children []entry, key string) (line, col int) {
	if len(children) == 0 {
		return parent.line, parent.col + d.step()
	}
	col = children[0].col
	i := slices.IndexFunc(children, func(e entry) bool { return e.key > key })
	switch i {
	case 0:
		return d.above(children[0].line), col
	case -1:
		i = len(children)
	}
	return d.through(children[i-1].last, col), col
}

// clear takes away a "{}" or "~" that stands for no children.
func (d *document) clear(parent *entry) []edit {
	if parent.end <= parent.colon {
		return nil
	}
	return []edit{{start: parent.colon, end: parent.end}}
}

func (p Pin) lines(col, step int) []string {
	inner := strings.Repeat(" ", col+step)
	lines := []string{
		strings.Repeat(" ", col) + encode(p.Reference) + ":",
		inner + "digest: " + encode(string(p.Digest)),
		inner + "mediaType: " + encode(p.MediaType),
		inner + "size: " + strconv.FormatInt(p.Size, 10),
	}
	lines = append(lines, p.platformLines(col+step, step)...)
	if p.Comment != "" {
		lines = append(lines, inner+"comment: "+encode(p.Comment))
	}
	return lines
}

func (p Pin) platformLines(col, step int) []string {
	if len(p.Platforms) == 0 {
		return nil
	}
	lines := []string{strings.Repeat(" ", col) + "platforms:"}
	for _, key := range slices.Sorted(maps.Keys(p.Platforms)) {
		lines = append(lines, platformLine(col+step, key, p.Platforms[key]))
	}
	return lines
}

func platformLine(col int, key string, d digest.Digest) string {
	return strings.Repeat(" ", col) + encode(key) + ": " + encode(string(d))
}

// change makes the record say what p says.
func (d *document) change(r *record, p Pin) []edit {
	edits := replace(r.field("digest"), encode(string(r.Digest)), encode(string(p.Digest)))
	edits = append(edits, replace(r.field("mediaType"), encode(r.MediaType), encode(p.MediaType))...)
	edits = append(edits, replace(r.field("size"), strconv.FormatInt(r.Size, 10), strconv.FormatInt(p.Size, 10))...)
	edits = append(edits, d.changePlatforms(r, p)...)
	return append(edits, d.changeComment(r, p.Comment)...)
}

// replace puts another value in the place of a scalar; old and value are as they would be written.
func replace(e *entry, old, value string) []edit {
	if old == value {
		return nil
	}
	if e.start == e.colon {
		value = " " + value
	}
	return []edit{{start: e.start, end: e.end, text: value}}
}

func (d *document) changePlatforms(r *record, p Pin) []edit {
	field, size := r.field("platforms"), r.field("size")
	switch {
	case maps.Equal(r.Platforms, p.Platforms):
		return nil
	case field == nil:
		return []edit{d.insert(d.through(size.last, size.col), p.platformLines(size.col, d.step())...)}
	case len(p.Platforms) == 0 && !d.hasComment(field.line, d.through(field.last, field.col)):
		return []edit{d.remove(field.line, field.last)}
	}
	var edits []edit
	for i := range r.platforms {
		edits = append(edits, d.changePlatform(&r.platforms[i], r.Platforms, p.Platforms)...)
	}
	return append(edits, d.addPlatforms(field, r, p)...)
}

func (d *document) hasComment(first, last int) bool {
	return bytes.IndexByte(d.data[d.lines[first]:d.end(last)], '#') >= 0
}

func (d *document) changePlatform(e *entry, old, wanted map[string]digest.Digest) []edit {
	value, ok := wanted[e.key]
	if !ok {
		return []edit{d.remove(e.line, e.last)}
	}
	return replace(e, encode(string(old[e.key])), encode(string(value)))
}

func (d *document) addPlatforms(field *entry, r *record, p Pin) []edit {
	var edits []edit
	if len(r.platforms) == 0 {
		edits = d.clear(field)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Platforms)) {
		if _, old := r.Platforms[key]; !old {
			line, col := d.place(field, r.platforms, key)
			edits = append(edits, d.insert(line, platformLine(col, key, p.Platforms[key])))
		}
	}
	return edits
}

// changeComment leaves an old comment alone if there is no new one. Of a block the lines go, but
// not a '#' comment behind its header.
func (d *document) changeComment(r *record, comment string) []edit {
	e, last := r.field("comment"), r.fields[len(r.fields)-1]
	switch {
	case comment == "" || comment == r.Comment:
		return nil
	case e == nil:
		line := strings.Repeat(" ", last.col) + "comment: " + encode(comment)
		return []edit{d.insert(d.through(last.last, last.col), line)}
	}
	edits := replace(e, encode(r.Comment), encode(comment))
	if e.last > e.line {
		edits = append(edits, edit{start: d.end(e.line), end: d.end(e.last)})
	}
	return edits
}
