package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

func TestCheckJSON(t *testing.T) {
	manyKeys := func(last string) string {
		var b strings.Builder
		for i := range 2 * fewKeys {
			fmt.Fprintf(&b, `"k%d":0,`, i)
		}
		return "{" + b.String() + fmt.Sprintf("%q:1}", last)
	}
	tests := []struct{ name, raw, says string }{
		{"an object", ` { "a" : [ 1 , "x" , null , true , { } , [ ] ] , "b" : -1.5e3 } `, ""},
		{"a string", `"a"`, ""},
		{"a number", `17`, ""},
		{"null", "null\n", ""},
		{"the same key in two objects", `[{"a":1},{"a":{"a":2}}]`, ""},
		{"keys of different case", `{"a":1,"A":2}`, ""},
		{"a pair of surrogates", `{"\ud83d\ude00":"\ud83d\ude00"}`, ""},
		{"escapes", `{"\"\\\/\b\f\n\r\t\u0041":"\"\\\/\b\f\n\r\t\u0041"}`, ""},
		{"a string of backslashes", `["\\\\","\\\"","\\"]`, ""},
		{"64 deep", strings.Repeat("[", 64) + strings.Repeat("]", 64), ""},
		{"many keys", manyKeys("last"), ""},
		{"wide, not deep", "[" + strings.Repeat("{},", 1000) + "[]]", ""},
		{"as many members as there may be", "[" + strings.Repeat("0,", maxMembers-2) + "0]", ""},
		{"too many elements", "[" + strings.Repeat("0,", maxMembers) + "0]", "more than 100000 members"},
		{"too many in all", "[" + strings.Repeat(`{"a":0},`, maxMembers/2) + "0]", "more than 100000 members"},
		{"nothing", ``, "syntax error at byte 0"},
		{"no JSON", `<html>`, "syntax error at byte 1"},
		{"two values", `{}{}`, "syntax error at byte 3"},
		{"a broken escape", `["\x"]`, "syntax error"},
		{"no UTF-8", "[\"\xff\"]", "UTF-8"},
		{"a surrogate in UTF-8", "[\"\xed\xa0\x80\"]", "UTF-8"},
		{"a key twice", `{"a":1,"b":2,"a":3}`, `"a" twice`},
		{"a key twice, deep", `[[{"x":{"a":1,"a":1}}]]`, `"a" twice`},
		{"a key twice, after an object", `{"a":{"b":1},"a":1}`, `"a" twice`},
		{"a key twice, one escaped", `{"a/b":1,"\u0061\/b":2}`, `"a/b" twice`},
		{"a key twice, both escaped", `{"\ud83d\ude00":1,"😀":2}`, `twice`},
		{"an empty key twice", `{"":1,"":2}`, `"" twice`},
		{"a key twice among many", manyKeys("k1"), `"k1" twice`},
		{"the last key twice among many", manyKeys(fmt.Sprint("k", 2*fewKeys-1)), `twice`},
		{"half a pair", `"\ud83d"`, "surrogate"},
		{"half a pair before text", `"\ud83dxxxxxxxxxx"`, "surrogate"},
		{"half a pair before an escape", `"\ud83d\n\n\n\n\n\n"`, "surrogate"},
		{"the other half", `"\ude00"`, "surrogate"},
		{"two first halves", `"\ud83d\ud83d"`, "surrogate"},
		{"half a pair in a key", `{"\ud83d":1}`, "surrogate"},
		{"65 deep", strings.Repeat("[", 65) + strings.Repeat("]", 65), "more than 64"},
		{"65 deep in objects", strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), "more than 64"},
		{"too deep for any reader", strings.Repeat("[", 1<<20), "syntax error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckJSON([]byte(tt.raw))
			if tt.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var refused *JSONError
			if !errors.As(err, &refused) || !errors.Is(err, berth.ErrManifestInvalid) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 200 {
				t.Errorf("%q does not say %q in short", err, tt.says)
			}
			if refused.Offset < 0 || refused.Offset > int64(len(tt.raw))+1 {
				t.Errorf("offset %d of %d", refused.Offset, len(tt.raw))
			}
		})
	}
}

// A text that is made to be looked at again and again takes no longer than another.
func TestCheckJSONIsLinear(t *testing.T) {
	for name, raw := range map[string]string{
		"backslashes": `"` + strings.Repeat(`\\`, 1<<20) + `"`,
		"quotes":      `"` + strings.Repeat(`\"`, 1<<20) + `"`,
		"escapes":     `"` + strings.Repeat(`\u0041`, 1<<19) + `"`,
		"objects":     "[" + strings.Repeat("{},", maxMembers-2) + "0]",
	} {
		if err := CheckJSON([]byte(raw)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tree is a JSON value before it is written.
type tree struct {
	text     string // of a scalar
	bad      bool   // a scalar that no two readers agree on
	isObject bool
	keys     []string
	elements []tree
}

// verdict is what CheckJSON must say of it.
func (n tree) verdict(depth int) string {
	if n.text != "" {
		if n.bad {
			return "surrogate"
		}
		return ""
	}
	if depth > maxDepth {
		return "deep"
	}
	seen := map[string]bool{}
	for _, key := range n.keys {
		if seen[key] {
			return "twice"
		}
		seen[key] = true
	}
	for _, element := range n.elements {
		if v := element.verdict(depth + 1); v != "" {
			return v
		}
	}
	return ""
}

func (n tree) write(t *rapid.T, b *strings.Builder) {
	space := func() { b.WriteString(rapid.SampledFrom([]string{"", "", " ", "\n\t", "\r "}).Draw(t, "space")) }
	space()
	defer space()
	if n.text != "" {
		b.WriteString(n.text)
		return
	}
	brackets := "[]"
	if n.isObject {
		brackets = "{}"
	}
	b.WriteByte(brackets[0])
	space()
	for i, element := range n.elements {
		if i > 0 {
			b.WriteByte(',')
			space()
		}
		if n.isObject {
			b.WriteString(writeString(t, n.keys[i]))
			space()
			b.WriteByte(':')
		}
		element.write(t, b)
	}
	b.WriteByte(brackets[1])
}

// writeString escapes any of the characters, and those that must be.
func writeString(t *rapid.T, s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r >= ' ' && r != '"' && r != '\\' && rapid.IntRange(0, 3).Draw(t, "escape") > 0 {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, rapid.SampledFrom([]string{`\u%04x`, `\u%04X`}).Draw(t, "case"), unit)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func drawTree(t *rapid.T, depth int) tree {
	if depth > 3 || rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
		return drawScalar(t)
	}
	n := tree{isObject: rapid.Bool().Draw(t, "object")}
	count := rapid.IntRange(0, 4).Draw(t, "count")
	if depth == 0 && rapid.IntRange(0, 9).Draw(t, "large") == 0 {
		count = rapid.IntRange(fewKeys-2, 2*fewKeys).Draw(t, "count")
	}
	for i := range count {
		key := rapid.SampledFrom([]string{"", "a", "A", "/", "\"\\", "\n", "é", "😀", "a😀"}).Draw(t, "key")
		if rapid.IntRange(0, 9).Draw(t, "plain") > 0 {
			key = fmt.Sprint("key ", i)
		}
		n.keys = append(n.keys, key)
		n.elements = append(n.elements, drawTree(t, depth+1+count/10))
	}
	if !n.isObject {
		n.keys = nil
	}
	return n
}

func drawScalar(t *rapid.T) tree {
	if rapid.IntRange(0, 40).Draw(t, "bad") == 0 {
		return tree{bad: true, text: rapid.SampledFrom([]string{`"\ud800"`, `"x\udfffx"`, `"\ud800\ud800"`, `"\ud83dx\ude00"`}).Draw(t, "half")}
	}
	if rapid.Bool().Draw(t, "string") {
		return tree{text: writeString(t, rapid.StringN(0, 8, 40).Draw(t, "text"))}
	}
	return tree{text: rapid.SampledFrom([]string{"0", "-1.5e+3", "true", "false", "null"}).Draw(t, "scalar")}
}

// CheckJSON says of each text what is known of the tree that it was written from.
func TestCheckJSONIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawTree(t, 0)
		for i := rapid.SampledFrom([]int{0, 0, 0, 60, 62, 64, 66}).Draw(t, "wrapped"); i > 0; i-- {
			n = tree{isObject: i%2 == 0, keys: []string{"x"}, elements: []tree{n}}
		}
		var b strings.Builder
		n.write(t, &b)
		err := CheckJSON([]byte(b.String()))
		want := n.verdict(1)
		if (err == nil) != (want == "") {
			t.Fatalf("%s\ngot %v, want %q", b.String(), err, want)
		}
	})
}

func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"\u0061",{"b":null}]}`, `{"a":1,"\u0061":2}`, `"\ud83d\ude00\ud83d"`, `[[[[]]]]`, "{\"\xff\":1}", `{"a":"\\\"","b":"\\"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := CheckJSON(raw)
		if want := naively(raw); (err == nil) != (want == nil) {
			t.Errorf("%q: got %v, want %v", raw, err, want)
		}
		if err != nil && !errors.Is(err, berth.ErrManifestInvalid) {
			t.Errorf("an error without a code: %v", err)
		}
	})
}

// naively is CheckJSON token by token.
func naively(raw []byte) error {
	if !utf8.Valid(raw) || !json.Valid(raw) || hasHalfPair(string(raw)) {
		return errors.New("not valid")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return naiveValue(dec, 1)
}

func naiveValue(dec *json.Decoder, depth int) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	delim, isDelim := token.(json.Delim)
	if !isDelim {
		return nil
	}
	if depth > maxDepth {
		return errors.New("too deep")
	}
	seen := map[any]bool{}
	for dec.More() {
		if delim == '{' {
			key, err := dec.Token()
			if err != nil || seen[key] {
				return fmt.Errorf("%v twice, %v", key, err)
			}
			seen[key] = true
		}
		if err := naiveValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// hasHalfPair looks at all escapes of a valid text, which stand in strings alone.
func hasHalfPair(s string) bool {
	high := false
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			if high {
				return true
			}
			continue
		}
		i++
		var unit rune
		if s[i] == 'u' {
			fmt.Sscanf(s[i+1:i+5], "%x", &unit)
			i += 4
		}
		isLow := unit >= 0xdc00 && unit < 0xe000
		if high != isLow {
			return true
		}
		high = unit >= 0xd800 && unit < 0xdc00
	}
	return high
}
