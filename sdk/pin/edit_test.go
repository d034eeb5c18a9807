package pin

import (
	"strings"
	"testing"
)

// hand is a file as people write it: comments everywhere, blank lines, quotes, an order of its own.
const hand = `# The images of this project.
version: 1   # the only one there is

pins: # see docs/images.md

  # Base images.

  # Ours.
  "team/web:v1": # the front end
      # Ask before you change this.
      digest: "<a>" # an index
      size: 9

      mediaType: 'INDEX'
      platforms:   # all we ship
        # servers
        linux/amd64: <1> # fast
        linux/arm64/v8: '<2>'
        # desktops
        windows/amd64: <3>
        # no more desktops
      # end of web

  team/api:v1:
      digest: <b>
      mediaType: IMAGE
      size: 7
      comment: |  # the reason
        One line.
        # and what is no comment

        Another.

      # end of api

# The end.
`

func TestSetEditsInPlace(t *testing.T) {
	web := index("team/web:v1", "a", "linux/amd64=1", "linux/arm64/v8=2", "windows/amd64=3")
	api := image("team/api:v1", "b")
	tests := []struct {
		name string
		set  func() Pin
		// old is replaced by new, once, and nothing else changes.
		old, new string
	}{
		{"nothing", func() Pin { return web }, "", ""},
		{"digest", func() Pin { p := web; p.Digest = hexOf("c"); return p }, `"<a>"`, "<c>"},
		{"size", func() Pin { p := web; p.Size = 1000; return p }, "size: 9", "size: 1000"},
		{"a platform", func() Pin { return index(web.Reference, "a", "linux/amd64=4", "linux/arm64/v8=2", "windows/amd64=3") }, "<1>", "<4>"},
		{"a quoted platform", func() Pin { return index(web.Reference, "a", "linux/amd64=1", "linux/arm64/v8=4", "windows/amd64=3") }, "'<2>'", "<4>"},
		{"first platform gone", func() Pin { return index(web.Reference, "a", "linux/arm64/v8=2", "windows/amd64=3") },
			"        linux/amd64: <1> # fast\n", "        # fast\n"},
		{"last platform gone", func() Pin { return index(web.Reference, "a", "linux/amd64=1", "linux/arm64/v8=2") },
			"        windows/amd64: <3>\n", ""},
		{"new first platform", func() Pin {
			return index(web.Reference, "a", "darwin/arm64=4", "linux/amd64=1", "linux/arm64/v8=2", "windows/amd64=3")
		}, "        # servers\n", "        darwin/arm64: <4>\n        # servers\n"},
		{"new platform between", func() Pin {
			return index(web.Reference, "a", "linux/386=4", "linux/amd64=1", "linux/arm64/v8=2", "linux/s390x=5", "windows/amd64=3")
		}, "        # servers\n        linux/amd64: <1> # fast\n        linux/arm64/v8: '<2>'\n",
			"        linux/386: <4>\n        # servers\n        linux/amd64: <1> # fast\n        linux/arm64/v8: '<2>'\n        linux/s390x: <5>\n"},
		{"new last platform", func() Pin {
			return index(web.Reference, "a", "linux/amd64=1", "linux/arm64/v8=2", "windows/amd64=3", "windows/arm64=4")
		}, "        # no more desktops\n", "        windows/arm64: <4>\n        # no more desktops\n"},
		{"last platform replaced", func() Pin {
			return index(web.Reference, "a", "linux/amd64=1", "linux/arm64/v8=2", "windows/arm64=4")
		}, "windows/amd64: <3>\n", "windows/arm64: <4>\n"},
		{"platform with an OS version", func() Pin {
			return index(web.Reference, "a", "darwin(macOS 14)/arm64=4", "linux/amd64=1", "linux/arm64/v8=2", "windows/amd64=3")
		}, "        # servers\n", "        darwin(macOS 14)/arm64: <4>\n        # servers\n"},
		{"new comment", func() Pin { p := web; p.Comment = "why: #1"; return p },
			"      # end of web\n", "      comment: \"why: #1\"\n      # end of web\n"},
		{"platforms for an image", func() Pin { p := index(api.Reference, "b", "linux/amd64=1"); p.Size = 7; return p },
			"mediaType: IMAGE\n      size: 7\n", "mediaType: INDEX\n      size: 7\n      platforms:\n          linux/amd64: <1>\n"},
		{"comment in a block", func() Pin { p := api; p.Comment = "new"; return p },
			"|  # the reason\n        One line.\n        # and what is no comment\n\n        Another.\n", "new  # the reason\n"},
		{"comment of two lines", func() Pin { p := api; p.Comment = "a\nb"; return p },
			"|  # the reason\n        One line.\n        # and what is no comment\n\n        Another.\n", `"a\nb"  # the reason` + "\n"},
		{"new first pin", func() Pin { return image("app:v1", "c") },
			"  # Ours.\n", "  app:v1:\n      digest: <c>\n      mediaType: IMAGE\n      size: 7\n\n  # Ours.\n"},
		{"new pin between, in an order of one's own", func() Pin { return image("team/b:v1", "c") },
			"  # Ours.\n", "  team/b:v1:\n      digest: <c>\n      mediaType: IMAGE\n      size: 7\n\n  # Ours.\n"},
		{"new last pin", func() Pin { p := index("x.io/y:v1", "c", "linux/386=4"); p.Comment = "é: "; return p },
			"      # end of api\n", "      # end of api\n\n  x.io/y:v1:\n      digest: <c>\n      mediaType: INDEX\n      size: 9\n      platforms:\n          linux/386: <4>\n      comment: \"é: \"\n"},
		{"key that needs quotes", func() Pin { return image("[::1]:5000/x:v1", "c") },
			"  # Ours.\n", "  \"[::1]:5000/x:v1\":\n      digest: <c>\n      mediaType: IMAGE\n      size: 7\n\n  # Ours.\n"},
	}
	for _, tt := range tests {
		for _, eol := range []string{"\n", "\r\n"} {
			t.Run(tt.name+map[string]string{"\r\n": ", CRLF"}[eol], func(t *testing.T) {
				dress := func(s string) string { return strings.ReplaceAll(expand(s), "\n", eol) }
				f := mustParse(t, dress(hand))
				if err := f.Set(tt.set()); err != nil {
					t.Fatal(err)
				}
				wantBytes(t, f, strings.Replace(dress(hand), dress(tt.old), dress(tt.new), 1))
			})
		}
	}
}

func wantBytes(t *testing.T, f *File, want string) {
	t.Helper()
	if got := string(f.Bytes()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSetInSmallFiles(t *testing.T) {
	pin := "  a:v1:\n    digest: <a>\n    mediaType: IMAGE\n    size: 7\n"
	full := head + "  a:v1:\n    digest: <a>\n    mediaType: INDEX\n    size: 9\n    platforms:\n      linux/386: <1>\n"
	tests := []struct {
		name, before string
		set          Pin
		after        string
	}{
		{"no pins", head, image("a:v1", "a"), head + pin},
		{"no last newline", "version: 1\npins:", image("a:v1", "a"), head + strings.TrimSuffix(pin, "\n")},
		{"braces", "version: 1\npins: {} # none\n", image("a:v1", "a"), "version: 1\npins: # none\n" + pin},
		{"null", "version: 1\npins: ~\n", image("a:v1", "a"), head + pin},
		{"comment behind pins", "version: 1\npins:\n  # nothing yet\n", image("a:v1", "a"), head + pin + "  # nothing yet\n"},
		{"version at the end", "pins:\nversion: 1\n", image("a:v1", "a"), "pins:\n" + pin + "version: 1\n"},
		{"document end", head + "...\n", image("a:v1", "a"), head + pin + "...\n"},
		{"behind a pin without a last newline", head + strings.TrimSuffix(pin, "\n"), image("b:v1", "b"),
			head + pin + "  b:v1:\n    digest: <b>\n    mediaType: IMAGE\n    size: 7"},
		{"behind a block without a last newline", head + pin + "    comment: |\n      x", image("b:v1", "b"),
			head + pin + "    comment: |\n      x\n  b:v1:\n    digest: <b>\n    mediaType: IMAGE\n    size: 7"},
		{"to an image", full, image("a:v1", "a"), head + pin},
		{"to an image, with comments", head + "  a:v1:\n    comment: |\n      x\n    platforms: # all\n      linux/386: <1> # old\n      # more\n    digest: <a>\n    mediaType: INDEX\n    size: 9\n",
			image("a:v1", "a"),
			head + "  a:v1:\n    comment: |\n      x\n    platforms: # all\n      # old\n      # more\n    digest: <a>\n    mediaType: IMAGE\n    size: 7\n"},
		{"back to an index", head + "  a:v1:\n    digest: <a>\n    mediaType: IMAGE\n    size: 9\n    platforms: {} # none\n    comment:\n", index("a:v1", "a", "linux/386=1"),
			head + "  a:v1:\n    digest: <a>\n    mediaType: INDEX\n    size: 9\n    platforms: # none\n      linux/386: <1>\n    comment:\n"},
		{"all platforms new", full, index("a:v1", "a", "linux/amd64=2", "aix/ppc64=3"),
			strings.Replace(full, "linux/386: <1>", "aix/ppc64: <3>\n      linux/amd64: <2>", 1)},
		{"comment where there was none", head + pin, Pin{Reference: "a:v1", Digest: hexOf("a"), MediaType: image("", "a").MediaType, Size: 7, Comment: "null"},
			head + pin + "    comment: \"null\"\n"},
		{"comment where there was an empty one", head + pin + "    comment: # why\n", Pin{Reference: "a:v1", Digest: hexOf("a"), MediaType: image("", "a").MediaType, Size: 7, Comment: "x"},
			head + pin + "    comment: x # why\n"},
		{"reference not in full form", head, image("docker.io/a", "a"), head + strings.Replace(pin, "a:v1", "docker.io/library/a:latest", 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, expand(tt.before))
			if err := f.Set(tt.set); err != nil {
				t.Fatal(err)
			}
			wantBytes(t, f, expand(tt.after))
		})
	}
}

func TestSetKeepsTheHabitsOfTheFile(t *testing.T) {
	f := mustParse(t, empty)
	for _, reference := range []string{"c:v1", "a:v1", "b:v1", "d:v1"} {
		if err := f.Set(index(reference, "a", "linux/386=1")); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, p := range f.Pins() {
		got = append(got, p.Reference)
	}
	if want := "a:v1 b:v1 c:v1 d:v1"; strings.Join(got, " ") != want {
		t.Errorf("order is %v, want %s", got, want)
	}
	if strings.Contains(string(f.Bytes()), "\n\n") {
		t.Errorf("there are blank lines in a file that had none:\n%s", f.Bytes())
	}
	deep := mustParse(t, expand("version: 1\npins:\n    b:v1:\n        digest: <a>\n        mediaType: INDEX\n        size: 9\n"))
	if err := deep.Set(index("c:v1", "a", "linux/386=1")); err != nil {
		t.Fatal(err)
	}
	if want := expand("\n    c:v1:\n        digest: <a>\n        mediaType: INDEX\n        size: 9\n        platforms:\n            linux/386: <1>\n"); !strings.HasSuffix(string(deep.Bytes()), want) {
		t.Errorf("indentation is not that of the file:\n%s", deep.Bytes())
	}
}

func TestSetDoesNotShareWithTheCaller(t *testing.T) {
	data := []byte(empty)
	f, err := Parse("berth.lock", data)
	if err != nil {
		t.Fatal(err)
	}
	p := index("a:v1", "a", "linux/386=1")
	if err := f.Set(p); err != nil {
		t.Fatal(err)
	}
	data[0], f.Bytes()[0] = 'X', 'X'
	p.Platforms["linux/386"] = hexOf("2")
	f.Pins()[0].Platforms["linux/386"] = hexOf("3")
	got, _ := f.Pin("a:v1")
	got.Platforms["linux/386"] = hexOf("4")
	if got, _ := f.Pin("a:v1"); !got.equal(index("a:v1", "a", "linux/386=1")) {
		t.Errorf("the caller changed the file: %+v", got)
	}
	if f.Bytes()[0] != 'v' {
		t.Error("the caller changed the bytes")
	}
}

func TestTheLargestFileIsReadAndDoesNotGrow(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector takes ten seconds for 16 MiB")
	}
	data := head + strings.Repeat("#"+strings.Repeat("x", 998)+"\n", (MaxSize-len(head))/1000)
	data += strings.Repeat("#", MaxSize-len(data))
	f := mustParse(t, data)
	wantInvalid(t, f.Set(image("a:v1", "a")), "berth.lock: after the edit it would not be valid any more")
	if len(f.Pins()) != 0 || len(f.Bytes()) != len(data) {
		t.Error("a refused edit changed the file")
	}
}
