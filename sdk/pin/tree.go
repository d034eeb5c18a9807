package pin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entry is one "key: value" of a block mapping, and where it stands.
type entry struct {
	key string
	// col is the key's indentation, line its line, colon the offset behind its colon.
	col, line, colon int
	value            *yaml.Node
	// start and end enclose a scalar's bytes, quotes included; for a block scalar only its header.
	start, end int
	// last is the line that the value ends in.
	last int
}

// scope says what a mapping is, for messages: noun is what its keys are, in where it stands. Keys
// must be among known, unless that is nil.
type scope struct {
	noun, in string
	known    []string
}

// root reads the one document that the file must be.
func (t *text) root() (*yaml.Node, error) {
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(t.data))
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, t.fault(0, `there is nothing in it: write "version: 1" and "pins:", or remove the file`)
	}
	if err == nil {
		if err = decoder.Decode(&more); err == nil {
			return nil, t.fault(max(more.Line-1, 0), "a second YAML document begins here: keep one")
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, t.syntax(err)
	}
	return doc.Content[0], nil
}

var yamlErrorPattern = lazily(`^yaml: (?:line (\d+): )?(.*)`)

// syntax turns an error of the YAML parser into a fault.
func (t *text) syntax(err error) error {
	var line int
	message := err.Error()
	if m := yamlErrorPattern().FindStringSubmatch(message); m != nil {
		fmt.Sscan(m[1], &line)
		message = m[2]
	}
	// This kind of error has its line counted from 0, the others from 1.
	if !strings.HasPrefix(message, "did not find expected") {
		line = max(line-1, 0)
	}
	line = min(line, len(t.lines)-1)
	return t.fault(line, "this is no YAML, here or below (%.100s): check quotes, colons and indentation", message)
}

// mapping reads one level: its keys, and where their values begin.
func (t *text) mapping(n *yaml.Node, s scope) ([]entry, error) {
	if err := t.bare(n, s); err != nil {
		return nil, err
	}
	if n.Kind != yaml.MappingNode || n.Style&yaml.FlowStyle != 0 {
		return nil, t.fault(n.Line-1, `a mapping is wanted%s: write one "key: value" a line, without braces`, s.in)
	}
	first := make(map[string]int, len(n.Content)/2)
	entries := make([]entry, 0, len(n.Content)/2)
	for pair := range slices.Chunk(n.Content, 2) {
		e, err := t.entry(n, pair, s)
		if err != nil {
			return nil, err
		}
		if line, ok := first[e.key]; ok {
			return nil, t.fault(e.line, "%s %.300q is there twice%s, first in line %d: remove one", s.noun, e.key, s.in, line+1)
		}
		first[e.key] = e.line
		entries = append(entries, e)
	}
	return entries, nil
}

// children reads the mapping that is e's value, and sets where that ends. No value, or "{}", has no children.
func (t *text) children(e *entry, s scope) ([]entry, error) {
	e.last = e.line
	if e.isNull() {
		if _, err := t.scalar(e, s); err == nil {
			return nil, nil
		}
	}
	if n := e.value; n.Kind == yaml.MappingNode && len(n.Content) == 0 && n.Line-1 == e.line {
		e.start = t.offset(n)
		e.end = e.start + len("{}")
		if bytes.HasPrefix(t.data[e.start:], []byte("{}")) {
			return nil, t.bare(n, s)
		}
	}
	return t.mapping(e.value, s)
}

func (t *text) entry(parent *yaml.Node, pair []*yaml.Node, s scope) (entry, error) {
	key, value := pair[0], pair[1]
	e := entry{key: key.Value, col: key.Column - 1, line: key.Line - 1, value: value}
	if err := t.bare(key, s); err != nil {
		return e, err
	}
	end, ok := t.token(key)
	var rest []byte
	if ok && key.Column == parent.Column {
		rest = bytes.TrimLeft(t.data[end:t.end(e.line)], " \t")
	}
	if !bytes.HasPrefix(rest, []byte(":")) {
		return e, t.fault(e.line, `the form of this key is not read%s: write "key: value" on one line`, s.in)
	}
	e.colon = t.end(e.line) - len(rest) + len(":")
	return e, t.checkKnown(e, s)
}

func (t *text) checkKnown(e entry, s scope) error {
	if s.known == nil || slices.Contains(s.known, e.key) {
		return nil
	}
	return t.fault(e.line, "unknown %s %.100q%s: %s", s.noun, e.key, s.in, suggest(e.key, s.known))
}

// bare refuses what YAML can put before or in place of a value.
func (t *text) bare(n *yaml.Node, s scope) error {
	what := ""
	switch {
	case n.Kind == yaml.AliasNode:
		what = "an alias (*name)"
	case n.Anchor != "":
		what = "an anchor (&name)"
	case n.Style&yaml.TaggedStyle != 0:
		what = "a tag (!name)"
	default:
		return nil
	}
	return t.fault(n.Line-1, "%s is not read%s: write the value out", what, s.in)
}

func (e *entry) isNull() bool {
	return e.value.Kind == yaml.ScalarNode && e.value.ShortTag() == "!!null"
}

// scalar reads the one-line value of e; no value is an empty one.
func (t *text) scalar(e *entry, s scope) (string, error) {
	n := e.value
	if err := t.bare(n, s); err != nil {
		return "", err
	}
	e.start, e.end, e.last = e.colon, e.colon, e.line
	if n.Kind == yaml.ScalarNode && n.Style == 0 && n.Value == "" && t.offset(n) == e.colon {
		return "", nil
	}
	end, ok := t.token(n)
	if !ok || n.Line-1 != e.line || !t.endsLine(end, e.line) {
		return "", t.fault(n.Line-1, "%s %.300q%s has a value of another form than is read: write it on one line behind the key", s.noun, e.key, s.in)
	}
	e.start, e.end = t.offset(n), end
	if e.isNull() {
		return "", nil
	}
	return n.Value, nil
}

// prose reads a scalar that may also be a block.
func (t *text) prose(e *entry, s scope) (string, error) {
	n := e.value
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 || n.Line-1 != e.line {
		return t.scalar(e, s)
	}
	if err := t.bare(n, s); err != nil {
		return "", err
	}
	e.start = t.offset(n)
	rest := string(t.data[e.start:t.end(e.line)])
	header := rest[:len(rest)-len(strings.TrimLeft(rest, "|>+-0123456789"))]
	if !slices.Contains([]string{"|", "|-", ">", ">-"}, header) || !t.endsLine(e.start+len(header), e.line) {
		return "", t.fault(e.line, "a block after %.20q is not read%s: use \"|\" alone", rest, s.in)
	}
	e.end, e.last = e.start+len(header), t.blockEnd(e.line, e.col)
	value := n.Value
	// A file may end without a newline; the value must not change when a pin is added behind it.
	if value != "" && len(header) == 1 && !strings.HasSuffix(value, "\n") {
		value += "\n"
	}
	return value, nil
}

// blockEnd is the last line of the block scalar whose header stands in line, in a mapping that is
// indented by parent: blank lines at its end do not count, they are not part of its value.
func (t *text) blockEnd(line, parent int) int {
	last, indent := line, 0
	for i := line + 1; i < len(t.lines); i++ {
		content := t.content(i)
		n := indentOf(content)
		switch {
		case n == len(content) && (indent == 0 || n <= indent):
			continue
		case indent == 0 && n > parent:
			indent = n
		case n <= parent || n < indent:
			return last
		}
		last = i
	}
	return last
}

// offset is where a node begins; YAML's columns count characters.
func (t *text) offset(n *yaml.Node) int {
	at := t.lines[n.Line-1]
	content := string(t.content(n.Line - 1))
	column := 1
	for i := range content {
		if column == n.Column {
			return at + i
		}
		column++
	}
	return at + len(content)
}

// token returns the offset behind a plain or quoted scalar, if that ends in the line it begins in
// and stands there as YAML has read it.
func (t *text) token(n *yaml.Node) (int, bool) {
	at := t.offset(n)
	rest := t.data[at:t.end(n.Line-1)]
	length := 0
	switch {
	case n.Kind != yaml.ScalarNode:
		return at, false
	case n.Style == 0:
		length = len(n.Value)
		return at + length, bytes.HasPrefix(rest, []byte(n.Value))
	case n.Style == yaml.SingleQuotedStyle:
		length = len(singleQuoted().Find(rest))
	case n.Style == yaml.DoubleQuotedStyle:
		length = len(doubleQuoted().Find(rest))
	}
	return at + length, length > 0
}

var (
	singleQuoted = lazily(`^'(?:[^']|'')*'`)
	doubleQuoted = lazily(`^"(?:[^"\\]|\\.)*"`)
)

// endsLine reports whether nothing but a comment follows in the line.
func (t *text) endsLine(at, line int) bool {
	rest := t.data[at:t.end(line)]
	return isBlank(rest) || (isComment(rest) && (rest[0] == ' ' || rest[0] == '\t'))
}

// encode writes a scalar on one line, in quotes where YAML needs them.
func encode(value string) string {
	plain, err := yaml.Marshal(value)
	if err == nil && strings.TrimSuffix(string(plain), "\n") == value && !strings.Contains(value, "\n") {
		return value
	}
	quoted, err := yaml.Marshal(&yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: value})
	if err != nil {
		return fmt.Sprintf("%q", value)
	}
	return strings.TrimSuffix(string(quoted), "\n")
}
