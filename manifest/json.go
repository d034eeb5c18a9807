package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/berthoci/berth"
)

const (
	// maxDepth of nested objects and arrays. A manifest has about five levels, a config six.
	maxDepth = 64
	// maxMembers of all objects and arrays together. One takes three bytes of text and a hundred of memory
	// where it is read; a manifest with 10,000 layers has some 60,000.
	maxMembers = 100_000
	// fewKeys are looked through one by one, which is faster than a map.
	fewKeys = 32
)

// JSONError says why CheckJSON refuses a text. It matches berth.ErrManifestInvalid.
type JSONError struct {
	// Offset is the byte at which it was noticed.
	Offset int64
	// Reason is what is wrong, in one line that quotes no more than a key.
	Reason string
}

// Error returns the reason.
func (e *JSONError) Error() string { return e.Reason }

// Unwrap returns berth.ErrManifestInvalid.
func (e *JSONError) Unwrap() error { return berth.ErrManifestInvalid }

// CheckJSON returns an error unless raw is one JSON value that all readers read alike:
//
//   - it is UTF-8, and no escape makes half a surrogate pair, which some readers keep and others
//     replace;
//   - no object has a key twice, however its characters are escaped: of two values one reader takes
//     the first, another the last;
//   - objects and arrays are nested at most 64 deep, for a reader that recurses;
//   - they have at most 100,000 members together, for a reader that keeps them all.
//
// The image specification asks for the first two ("Considerations", JSON, by way of RFC 7493).
// Numbers are not looked at, nor is whether a key is known.
//
// Errors: a *JSONError.
func CheckJSON(raw []byte) error {
	if !json.Valid(raw) {
		return syntaxError(raw)
	}
	return checkValid(raw, nil)
}

func syntaxError(raw []byte) error {
	var value json.RawMessage
	err := json.Unmarshal(raw, &value)
	failed := &JSONError{Reason: describe(err)}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		failed.Offset = syntax.Offset
	}
	return failed
}

// checkMembers refuses what has too many members, before anything is made of them. Most texts do not have
// that many commas, and are not looked at any closer.
func checkMembers(raw []byte) error {
	if bytes.Count(raw, []byte(",")) < maxMembers || !json.Valid(raw) {
		return nil
	}
	return checkValid(raw, nil)
}

// checkValid is CheckJSON for what is known to be JSON, and refuses keys that a shape does not allow.
func checkValid(raw []byte, s *shape) error {
	if !utf8.Valid(raw) {
		return &JSONError{Reason: "it is not UTF-8"}
	}
	w := walker{text: string(raw)}
	return w.value(s)
}

// walker goes once over a JSON text. It trusts the syntax, so it looks only for where things end.
type walker struct {
	text  string
	pos   int
	depth int
	// members that were found.
	members int
	// keys of the objects that are open, the innermost one's last.
	keys    []string
	scratch []byte
}

func (w *walker) fail(format string, args ...any) error {
	return &JSONError{Offset: int64(w.pos), Reason: fmt.Sprintf(format, args...)}
}

func (w *walker) value(s *shape) error {
	if w.members++; w.members > maxMembers {
		return w.fail("it has more than %d members", maxMembers)
	}
	w.skipSpace()
	switch w.text[w.pos] {
	case '{':
		return w.nested(s, w.object)
	case '[':
		return w.nested(s, w.array)
	case '"':
		content, escaped := w.quoted()
		if !escaped {
			return nil
		}
		_, err := w.unescape(content)
		return err
	}
	w.skipScalar()
	return nil
}

// nested counts the levels around what it calls, and steps over the opening bracket.
func (w *walker) nested(s *shape, inside func(*shape) error) error {
	if w.depth++; w.depth > maxDepth {
		return w.fail("it is nested more than %d deep", maxDepth)
	}
	w.pos++
	err := inside(s)
	w.depth--
	return err
}

func (w *walker) object(s *shape) error {
	base := len(w.keys)
	var many map[string]struct{}
	for !w.closed('}') {
		key, err := w.key()
		if err != nil {
			return err
		}
		if w.seen(base, key, &many) {
			return w.fail("an object has the key %.40q twice", key)
		}
		child, err := s.member(key)
		if err != nil {
			return w.fail("%v", err)
		}
		if err := w.value(child); err != nil {
			return err
		}
	}
	w.keys = w.keys[:base]
	return nil
}

// array passes its shape on to its elements: a shape is about objects.
func (w *walker) array(s *shape) error {
	for !w.closed(']') {
		if err := w.value(s); err != nil {
			return err
		}
	}
	return nil
}

// closed steps over the bracket if the object or array ends here, else over a comma before the next
// element.
func (w *walker) closed(bracket byte) bool {
	w.skipSpace()
	switch w.text[w.pos] {
	case bracket:
		w.pos++
		return true
	case ',':
		w.pos++
		w.skipSpace()
	}
	return false
}

// key reads a key and the colon behind it.
func (w *walker) key() (string, error) {
	key, escaped := w.quoted()
	if escaped {
		plain, err := w.unescape(key)
		if err != nil {
			return "", err
		}
		key = string(plain)
	}
	w.skipSpace()
	w.pos++
	return key, nil
}

// seen reports whether the object whose keys begin at base has that key, and remembers it. From some
// size on it keeps them in a map: an object can have as many keys as fit into a manifest.
func (w *walker) seen(base int, key string, many *map[string]struct{}) bool {
	if *many != nil {
		before := len(*many)
		(*many)[key] = struct{}{}
		return len(*many) == before
	}
	for _, k := range w.keys[base:] {
		if k == key {
			return true
		}
	}
	w.keys = append(w.keys, key)
	if len(w.keys)-base < fewKeys {
		return false
	}
	*many = make(map[string]struct{}, 2*fewKeys)
	for _, k := range w.keys[base:] {
		(*many)[k] = struct{}{}
	}
	return false
}

func (w *walker) skipSpace() {
	for w.pos < len(w.text) {
		switch w.text[w.pos] {
		case ' ', '\n', '\t', '\r':
			w.pos++
		default:
			return
		}
	}
}

// skipScalar steps over a number, true, false or null.
func (w *walker) skipScalar() {
	for w.pos < len(w.text) {
		switch w.text[w.pos] {
		case ',', ']', '}', ' ', '\n', '\t', '\r':
			return
		}
		w.pos++
	}
}

// quoted returns what stands between two quotes, and whether there is an escape in it. It looks for
// each quote and each backslash once: a text of backslashes is no reason to look again.
func (w *walker) quoted() (content string, escaped bool) {
	start := w.pos + 1
	for at := start; ; {
		end := at + strings.IndexByte(w.text[at:], '"')
		for at <= end {
			backslash := strings.IndexByte(w.text[at:end], '\\')
			if backslash < 0 {
				w.pos = end + 1
				return w.text[start:end], escaped
			}
			escaped = true
			at += backslash + 2
		}
	}
}

// unescape returns the characters of a string. The result is overwritten by the next call.
func (w *walker) unescape(s string) ([]byte, error) {
	plain := w.scratch[:0]
	for {
		backslash := strings.IndexByte(s, '\\')
		if backslash < 0 {
			w.scratch = append(plain, s...)
			return w.scratch, nil
		}
		plain = append(plain, s[:backslash]...)
		r, size := escape(s[backslash:])
		if size == 0 {
			return nil, w.fail("a string has half a surrogate pair")
		}
		plain = utf8.AppendRune(plain, r)
		s = s[backslash+size:]
	}
}

// escape decodes the escape that s begins with. Its size is 0 if that is half a surrogate pair.
func escape(s string) (r rune, size int) {
	switch s[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		return unicodeEscape(s)
	}
	return rune(s[1]), 2
}

func unicodeEscape(s string) (r rune, size int) {
	r = hex4(s[2:6])
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if len(s) < 12 || s[6] != '\\' || s[7] != 'u' {
		return 0, 0
	}
	if r = utf16.DecodeRune(r, hex4(s[8:12])); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

func hex4(s string) rune {
	n, _ := strconv.ParseUint(s, 16, 16) // the syntax is known to be right
	return rune(n)
}
