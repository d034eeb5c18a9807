package pin

import (
	"errors"
	"strings"
	"testing"
)

func wantInvalid(t *testing.T, err error, prefix string) {
	t.Helper()
	switch {
	case !errors.Is(err, ErrInvalid):
		t.Fatalf("got error %v, want one that is ErrInvalid", err)
	case !strings.HasPrefix(err.Error(), prefix):
		t.Errorf("got  %v\nwant %s…", err, prefix)
	case strings.Contains(err.Error(), "\n"):
		t.Errorf("more than one line: %q", err)
	}
}

const head = "version: 1\npins:\n"

// fields is what every pin must have.
const fields = "    digest: <a>\n    mediaType: INDEX\n    size: 9\n"

func TestParseReadsEveryForm(t *testing.T) {
	withComment := func(p Pin, comment string) Pin { p.Comment = comment; return p }
	plain := index("a:v1", "a")
	tests := []struct {
		name, data string
		want       []Pin
	}{
		{"no pins", head, nil},
		{"no pins, without a last newline", "version: 1\npins:", nil},
		{"braces", "version: 1\npins: {} # none\n", nil},
		{"null", "version: 1\npins: ~\n", nil},
		{"the other order", "pins:\n  a:v1:\n" + fields + "version: 1\n", []Pin{plain}},
		{"document markers", "---\n" + head + "  a:v1:\n" + fields + "...\n", []Pin{plain}},
		{"quotes", "'version': \"1\"\n\"pins\":\n  'a:v1' :\n    digest: \"<a>\"\n    \"mediaType\": 'INDEX' # it's one\n    size: '9'\n", []Pin{plain}},
		{"escapes", head + "  \"a\\x3av1\":\n" + fields, []Pin{plain}},
		{"fields in another order, deeper", head + "     a:v1:\n       size: 9\n       mediaType: INDEX\n       digest: <a>\n", []Pin{plain}},
		{"platforms", head + "  a:v1:\n" + fields + "    platforms:\n      linux/amd64: <b>\n      linux/arm64/v8: <c> # new\n",
			[]Pin{index("a:v1", "a", "linux/amd64=b", "linux/arm64/v8=c")}},
		{"no platforms", head + "  a:v1:\n" + fields + "    platforms:\n", []Pin{plain}},
		{"platforms in braces", head + "  a:v1:\n" + fields + "    platforms: {}\n", []Pin{plain}},
		{"comment", head + "  a:v1:\n" + fields + "    comment: it's#1 of 2 # not this\n", []Pin{withComment(plain, "it's#1 of 2")}},
		{"quoted comment", head + "  a:v1:\n" + fields + "    comment: \"a \\\"b\\\" # c\" # not this\n", []Pin{withComment(plain, `a "b" # c`)}},
		{"comment with apostrophes", head + "  a:v1:\n" + fields + "    comment: 'it''s'\n", []Pin{withComment(plain, "it's")}},
		{"empty comment", head + "  a:v1:\n" + fields + "    comment: # why not\n", []Pin{plain}},
		{"null comment", head + "  a:v1:\n" + fields + "    comment: null\n", []Pin{plain}},
		{"block comment", head + "  a:v1:\n    comment: |- # why\n\n      one\n        # two\n\n      three\n\n    # real\n" + fields, []Pin{withComment(plain, "\none\n  # two\n\nthree")}},
		{"folded comment", head + "  a:v1:\n" + fields + "    comment: >\n      one\n      two\n", []Pin{withComment(plain, "one two\n")}},
		{"tab before a value", head + "  a:v1:\n    digest:\t<a>\n    mediaType: INDEX\t\n    size: 9\t# x\n", []Pin{plain}},
		{"two", head + "  b:v1:\n" + fields + "\n  a:v1:\n" + fields, []Pin{index("b:v1", "a"), plain}},
		{"IPv6 host", head + "  '[::1]:5000/x:v1':\n" + fields, []Pin{index("[::1]:5000/x:v1", "a")}},
	}
	for _, tt := range tests {
		for _, eol := range []string{"\n", "\r\n"} {
			t.Run(tt.name+map[string]string{"\r\n": ", CRLF"}[eol], func(t *testing.T) {
				data := strings.ReplaceAll(expand(tt.data), "\n", eol)
				f := mustParse(t, data)
				wantPins(t, f.Pins(), tt.want)
				if string(f.Bytes()) != data {
					t.Errorf("bytes are not kept:\n%q", f.Bytes())
				}
			})
		}
	}
}

func wantPins(t *testing.T, got, want []Pin) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d pins, want %d: %+v", len(got), len(want), got)
	}
	for i := range got {
		if !got[i].equal(want[i]) {
			t.Errorf("pin %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func TestParseRefuses(t *testing.T) {
	pin := head + "  a:v1:\n" + fields
	tests := []struct{ name, data, want string }{
		{"empty", "", `1: there is nothing in it: write "version: 1"`},
		{"only comments", "# hello\n", "1: there is nothing in it"},
		{"no mapping", "hello\n", "1: a mapping is wanted at the top"},
		{"no version", "\npins:\n", `1: there is no version: write "version: 1"`},
		{"no pins", "version: 1\n", `1: there are no pins: write "pins:"`},
		{"version 2", "# x\nnews: [1]\nversion: 2\n", "3: version \"2\" is not known here, only 1 is: use the berth that wrote it"},
		{"version in words", "version: one\n", "1: version \"one\" is not known"},
		{"empty version", "version:\npins:\n", "1: version \"\" is not known"},
		{"version twice", "version: 1\npins:\nversion: 1\n", `3: field "version" is there twice at the top, first in line 1: remove one`},
		{"unknown at the top", "version: 1\npin:\n", `2: unknown field "pin" at the top: did you mean "pins"?`},
		{"unknown in a pin", head + "  app/hello:v1:\n    digst: <a>\n", `4: unknown field "digst" in pin "app/hello:v1": did you mean "digest"?`},
		{"unlike any", pin + "    freeze: x\n", `7: unknown field "freeze" in pin "a:v1": known are digest, mediaType, size, platforms, comment`},
		{"unknown, in another form", pin + "    referrers: [a]\n", `7: unknown field "referrers" in pin "a:v1"`},
		{"merge key", pin + "    <<: x\n", `7: unknown field "<<" in pin`},
		{"field twice", pin + "    size: 9\n", `7: field "size" is there twice in pin "a:v1", first in line 6: remove one`},
		{"pin twice", pin + "  \"a:v1\":\n" + fields, `7: pin "a:v1" is there twice, first in line 3: remove one`},
		{"platform twice", pin + "    platforms:\n      linux/386: <1>\n      linux/386: <1>\n", `9: platform "linux/386" is there twice in pin "a:v1", first in line 8`},
		{"short reference", head + "  a:\n" + fields, `3: pin "a" is not in full form: write "a:latest"`},
		{"short name of the hub", head + "  docker.io/a:v1:\n" + fields, `3: pin "docker.io/a:v1" is not in full form: write "docker.io/library/a:v1"`},
		{"tag and digest", head + "  a:v1@<a>:\n" + fields, `3: pin "a:v1@<a>" is not in full form: write "a:v1"`},
		{"bad reference", head + "  A:v1:\n" + fields, `3: reference "A:v1": repository name invalid`},
		{"digest alone", head + "  a@<a>:\n" + fields, `3: reference "a@<a>" has a digest and no tag`},
		{"very long reference", head + "  \"" + strings.Repeat("a", 1010) + "\":\n" + fields, `3: reference "aaaa`},
		{"no digest", head + "  a:v1:\n    mediaType: INDEX\n    size: 9\n", `3: pin "a:v1" has no digest: add it, or remove the pin and run "berth pin add a:v1"`},
		{"no media type", head + "  a:v1:\n    digest: <a>\n    size: 9\n", `3: pin "a:v1" has no mediaType`},
		{"no size", head + "  a:v1:\n    digest: <a>\n    mediaType: INDEX\n", `3: pin "a:v1" has no size`},
		{"nothing in a pin", head + "  a:v1:\n", `3: pin "a:v1" has no digest`},
		{"bad digest", head + "  a:v1:\n    digest: sha256:12\n", `4: pin "a:v1": "sha256:12" is no digest: write`},
		{"empty digest", head + "  a:v1:\n    digest:\n", `4: pin "a:v1": "" is no digest`},
		{"bad media type", head + "  a:v1:\n    mediaType: x\n", `4: pin "a:v1": "x" is no media type`},
		{"size in words", head + "  a:v1:\n    size: many\n", `4: pin "a:v1": "many" is no size: write the manifest's bytes`},
		{"size zero", head + "  a:v1:\n    size: 0\n", `4: pin "a:v1": 0 is no size`},
		{"size with a sign", head + "  a:v1:\n    size: +5\n", `4: pin "a:v1": "+5" is no size`},
		{"size in hex", head + "  a:v1:\n    size: 0x5\n", `4: pin "a:v1": "0x5" is no size`},
		{"size beyond int64", head + "  a:v1:\n    size: 99999999999999999999\n", `4: pin "a:v1": "99999999999999999999" is no size`},
		{"bad platform", pin + "    platforms:\n      linux: <1>\n", `8: pin "a:v1": "linux" is no platform`},
		{"bad child", pin + "    platforms:\n      linux/386: x\n", `8: pin "a:v1": "x" is no digest`},
		{"platforms of an image", head + "  a:v1:\n    platforms:\n      linux/386: <1>\n    digest: <a>\n    mediaType: IMAGE\n    size: 1\n", `4: pin "a:v1": only an index has platforms`},
		{"platforms as text", pin + "    platforms: linux/386\n", `7: a mapping is wanted in pin "a:v1"`},
		{"platforms as a list", pin + "    platforms:\n    - linux/386\n", `8: a mapping is wanted in pin "a:v1"`},
		{"platforms in braces", pin + "    platforms: {linux/386: <1>}\n", `7: a mapping is wanted in pin "a:v1": write one "key: value" a line, without braces`},
		{"spaced braces", pin + "    platforms: { }\n", `7: a mapping is wanted`},
		{"pins as a list", "version: 1\npins:\n- a:v1\n", "3: a mapping is wanted"},
		{"alias", head + "  a:v1: &x\n" + fields, "3: an anchor (&name) is not read"},
		{"anchor on a value", head + "  a:v1:\n    digest: &d <a>\n    mediaType: INDEX\n    size: 9\n  b:v1:\n    digest: *d\n", "4: an anchor (&name) is not read"},
		{"anchor on a key", head + "  &x a:v1:\n" + fields, "3: an anchor (&name) is not read"},
		{"alias of another field", "pins: &p\nversion: *p\n", "2: an alias (*name) is not read at the top"},
		{"anchor on a block", pin + "    comment: &c |\n      x\n", `7: an anchor (&name) is not read in pin "a:v1"`},
		{"tag", head + "  a:v1:\n    digest: !!str <a>\n", "4: a tag (!name) is not read"},
		{"tag of no type", head + "  a:v1:\n    digest: ! <a>\n", `4: field "digest" in pin "a:v1" has a value of another form`},
		{"tag of nothing", "version: 1\npins:\n  !\n", `3: a mapping is wanted: write`},
		{"comment sign at a block", pin + "    comment: |#x\n", `7: a block after "|#x" is not read`},
		{"list for a digest", head + "  a:v1:\n    digest: [<a>]\n", `4: field "digest" in pin "a:v1" has a value of another form`},
		{"digest on the next line", head + "  a:v1:\n    digest:\n      <a>\n", `5: field "digest" in pin "a:v1" has a value of another form`},
		{"digest as a block", head + "  a:v1:\n    digest: |-\n      <a>\n", `4: field "digest" in pin "a:v1" has a value of another form`},
		{"comment on two lines", pin + "    comment: one\n      two\n", `7: field "comment" in pin "a:v1" has a value of another form`},
		{"quotes over two lines", pin + "    comment: \"one\n      two\"\n", `7: field "comment" in pin "a:v1" has a value of another form`},
		{"block that keeps lines", pin + "    comment: |+\n      one\n\n", `7: a block after "|+" is not read`},
		{"block with an indentation", pin + "    comment: |2\n      one\n", `7: a block after "|2" is not read`},
		{"question mark", "? version\n: 1\n", "1: the form of this key is not read at the top"},
		{"key in brackets", "[version]: 1\n", "1: the form of this key is not read"},
		{"second document", head + "---\na: 1\n", "3: a second YAML document begins here"},
		{"broken second document", head + "---\na: 'x\n", "4: this is no YAML"},
		{"tab", head + "\ta:v1:\n", "3: this is no YAML, here or below (found character that cannot start any token)"},
		{"bad indentation", head + "  a:v1:\n    size: 9\n   digest: x\n", "3: this is no YAML, here or below"},
		{"open quote", head + "  a:v1:\n    comment: \"x\n", "4: this is no YAML"},
		{"open bracket", "version: 1\npins: [1,\n", "3: this is no YAML"},
		{"conflict", "version: 1\n<<<<<<< HEAD\npins:\n=======\n", "2: a merge conflict is left here (<<<<<<<): keep one side, and remove the marker lines"},
		{"half a conflict", head + "=======\n", "3: a merge conflict is left here (=======)"},
		{"end of a conflict", head + ">>>>>>> theirs\n", "3: a merge conflict is left here (>>>>>>>)"},
		{"base of a conflict", head + "||||||| 1234\n", "3: a merge conflict is left here (|||||||)"},
		{"Latin 1", head + "# caf\xe9\n", "3: it is not UTF-8 (byte 0xe9)"},
		{"UTF-16", "\xff\xfev\x00", "1: it is not UTF-8 (byte 0xff)"},
		{"byte order mark", "\ufeff" + head, "1: character U+FEFF is not allowed"},
		{"NUL", head + "# \x00\n", "3: character U+0000 is not allowed"},
		{"CR alone", "version: 1\rpins:\n", "1: character U+000D is not allowed"},
		{"line separator", head + "# a\u2028b\n", "3: character U+2028 is not allowed"},
		{"too large", strings.Repeat("#\n", MaxSize/2+1), "1: the file has more than 16777216 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, data := range []string{expand(tt.data), strings.ReplaceAll(expand(tt.data), "\n", "\r\n")} {
				_, err := Parse("dir/berth.lock", []byte(data))
				wantInvalid(t, err, "dir/berth.lock:"+expand(tt.want))
				if err != nil && len(err.Error()) > 700 {
					t.Errorf("the message has %d bytes", len(err.Error()))
				}
			}
		})
	}
}
