package pin

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"
)

// MaxSize is the largest lock file, in bytes, that is read.
const MaxSize = 16 << 20

// text is the bytes of a lock file and where its lines begin. Lines count from 0.
type text struct {
	name  string
	data  []byte
	lines []int
}

// fault is what is wrong in one line of a file.
type fault struct {
	name    string
	line    int
	message string
}

// Error is one line in the form that editors jump to; people count lines from 1.
func (f *fault) Error() string { return fmt.Sprintf("%s:%d: %s", f.name, f.line+1, f.message) }

// Unwrap makes every fault an ErrInvalid.
func (f *fault) Unwrap() error { return ErrInvalid }

func (t *text) fault(line int, format string, args ...any) error {
	return &fault{name: t.name, line: line, message: fmt.Sprintf(format, args...)}
}

// newText refuses what would make lines count differently here and in YAML, or is no text.
func newText(name string, data []byte) (*text, error) {
	t := &text{name: name, data: data, lines: []int{0}}
	if len(data) > MaxSize {
		return nil, t.fault(0, "the file has more than %d bytes, which is more than is read: remove pins, or use several files", MaxSize)
	}
	for i, b := range data {
		if b == '\n' {
			t.lines = append(t.lines, i+1)
		}
	}
	for line := range t.lines {
		if err := t.checkLine(line); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// conflictPattern is what git and its like leave in a file that they could not merge.
var conflictPattern = lazily(`^(<<<<<<<|\|\|\|\|\|\|\||=======|>>>>>>>)( |$)`)

func (t *text) checkLine(line int) error {
	content := t.content(line)
	if conflictPattern().Match(content) {
		return t.fault(line, "a merge conflict is left here (%s): keep one side, and remove the marker lines", content[:7])
	}
	for i := 0; i < len(content); {
		r, n := utf8.DecodeRune(content[i:])
		if r == utf8.RuneError && n == 1 {
			return t.fault(line, "it is not UTF-8 (byte %#x): save it as UTF-8", content[i])
		}
		if !isText(r) {
			return t.fault(line, "character %U is not allowed: remove it", r)
		}
		i += n
	}
	return nil
}

// isText excludes control characters, YAML's other line breaks (CR, NEL, LS, PS) and byte order marks.
func isText(r rune) bool {
	switch {
	case r == '\t':
		return true
	case r < 0x20, r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029, r == 0xfeff, r&0xffff >= 0xfffe:
		return false
	}
	return true
}

// end is the offset behind the line's content, before its line ending.
func (t *text) end(line int) int {
	if line+1 == len(t.lines) {
		return len(t.data)
	}
	end := t.lines[line+1] - 1
	if end > t.lines[line] && t.data[end-1] == '\r' {
		end--
	}
	return end
}

// content is the line without its line ending.
func (t *text) content(line int) []byte { return t.data[t.lines[line]:t.end(line)] }

// eol is the line ending for new lines: that of the first line.
func (t *text) eol() string {
	if end := t.end(0); end < len(t.data) && t.data[end] == '\r' {
		return "\r\n"
	}
	return "\n"
}

func indentOf(content []byte) int {
	return len(content) - len(bytes.TrimLeft(content, " "))
}

func isBlank(content []byte) bool { return len(bytes.TrimSpace(content)) == 0 }

func isComment(content []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(content), []byte("#")) }

// through is the line that something new is put behind if it shall follow what ends in line last:
// comments that are indented deeper than col still belong to that.
func (t *text) through(last, col int) int {
	for i := last + 1; i < len(t.lines); i++ {
		switch content := t.content(i); {
		case isBlank(content):
		case isComment(content) && indentOf(content) > col:
			last = i
		default:
			return last
		}
	}
	return last
}

// above is the line that something new is put behind if it shall come before line: the comment
// lines that lead up to line without a blank one belong to it.
func (t *text) above(line int) int {
	line--
	for line > 0 && isComment(t.content(line)) {
		line--
	}
	return line
}

// edit puts text in the place of the bytes from start to end.
type edit struct {
	start, end int
	text       string
}

// insert adds whole lines behind a line; an empty one is a blank line.
func (t *text) insert(line int, lines ...string) edit {
	at, added := t.end(line), ""
	for _, l := range lines {
		added += t.eol() + l
	}
	return edit{start: at, end: at, text: added}
}

// remove takes the lines from first to last away, but not the comments in them. There must be a
// line before first, and in the removed lines nothing but comments may contain a '#'.
func (t *text) remove(first, last int) edit {
	kept := ""
	for i := first; i <= last; i++ {
		content := t.content(i)
		if hash := bytes.IndexByte(content, '#'); hash >= 0 {
			kept += t.eol() + string(content[:indentOf(content)]) + string(content[hash:])
		}
	}
	return edit{start: t.end(first - 1), end: t.end(last), text: kept}
}

// apply returns the data with the edits made, which must not overlap. Those at one place are made
// in the order in which they are given.
func (t *text) apply(edits []edit) []byte {
	edits = slices.Clone(edits)
	slices.SortStableFunc(edits, func(a, b edit) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end))
	})
	var out []byte
	from := 0
	for _, e := range edits {
		out = append(append(out, t.data[from:e.start]...), e.text...)
		from = e.end
	}
	return append(out, t.data[from:]...)
}
