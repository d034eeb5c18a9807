package auth

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestCase02ChallengesAreParsed(t *testing.T) {
	param := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	tests := []struct {
		name   string
		values []string
		want   []challenge
	}{
		{"none", nil, nil},
		{"empty", []string{""}, nil},
		{"only commas", []string{" , ,,"}, nil},
		{"a scheme alone", []string{"Negotiate"}, []challenge{{scheme: "negotiate"}}},
		{"the usual", []string{`Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"`},
			[]challenge{{scheme: "bearer", params: param("realm", "https://a/t", "service", "s", "scope", "repository:x:pull,push")}}},
		{"the RFC's example of two in one field", []string{`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`},
			[]challenge{{scheme: "basic", params: param("realm", "simple")},
				{scheme: "newauth", params: param("realm", "apps", "type", "1", "title", `Login to "apps"`)}}},
		{"two fields", []string{`Basic realm="r"`, `Bearer realm="https://a"`},
			[]challenge{{scheme: "basic", params: param("realm", "r")}, {scheme: "bearer", params: param("realm", "https://a")}}},
		{"a scheme without parameters before another", []string{`Negotiate, Basic realm="r"`},
			[]challenge{{scheme: "negotiate"}, {scheme: "basic", params: param("realm", "r")}}},
		{"case of scheme and names", []string{`BEARER ReAlM="https://A/T",SERVICE=S`},
			[]challenge{{scheme: "bearer", params: param("realm", "https://A/T", "service", "S")}}},
		{"blanks around =", []string{"Basic realm \t= \"r\" , charset = UTF-8"},
			[]challenge{{scheme: "basic", params: param("realm", "r", "charset", "UTF-8")}}},
		{"token68", []string{"Negotiate YIIB/+a-b._~==, Basic realm=r"},
			[]challenge{{scheme: "negotiate", token68: "YIIB/+a-b._~=="}, {scheme: "basic", params: param("realm", "r")}}},
		{"token68 at the end", []string{"NTLM abc="}, []challenge{{scheme: "ntlm", token68: "abc="}}},
		{"empty list elements", []string{`, Basic , , realm="r",, Bearer realm=b,`},
			[]challenge{{scheme: "basic", params: param("realm", "r")}, {scheme: "bearer", params: param("realm", "b")}}},
		{"a comma and a scheme inside quotes", []string{`Basic realm="a, Bearer realm=\"https://evil\"", x=y`},
			[]challenge{{scheme: "basic", params: param("realm", `a, Bearer realm="https://evil"`, "x", "y")}}},
		{"a quoted backslash", []string{`Basic realm="a\\", x="\""`},
			[]challenge{{scheme: "basic", params: param("realm", `a\`, "x", `"`)}}},
		{"a bare URL", []string{`Bearer realm=https://a/t?x=y,service=s`},
			[]challenge{{scheme: "bearer", params: param("realm", "https://a/t?x=y", "service", "s")}}},
		{"blanks for commas", []string{`Bearer realm="https://a" service="s"`},
			[]challenge{{scheme: "bearer", params: param("realm", "https://a", "service", "s")}}},
		{"the first of equal names", []string{`Bearer realm="https://a",Realm="https://b"`},
			[]challenge{{scheme: "bearer", params: param("realm", "https://a")}}},
		{"no closing quote", []string{`Basic realm="open`}, []challenge{{scheme: "basic", params: param("realm", "open")}}},
		{"a backslash at the end", []string{`Basic realm="open\`}, []challenge{{scheme: "basic", params: param("realm", `open\`)}}},
		{"a parameter without a scheme", []string{`realm="r", Basic realm="s"`},
			[]challenge{{scheme: "basic", params: param("realm", "s")}}},
		{"a stray quoted string hides no challenge", []string{`"x, Bearer realm=https://evil", Basic realm=r`},
			[]challenge{{scheme: "basic", params: param("realm", "r")}}},
		{"bytes that are in no grammar", []string{"\x00(Basic) realm=r"},
			[]challenge{{scheme: "basic", params: param("realm", "r")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseChallenges(tt.values); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("parseChallenges(%q)\n got %+v\nwant %+v", tt.values, got, tt.want)
			}
		})
	}
}

func TestCase01TheStrongestChallengeIsFirstWhateverTheOrder(t *testing.T) {
	const (
		basic     = `Basic realm="r"`
		realmless = `Bearer service="s"`
		full      = `Bearer realm="https://a"`
		other     = `Negotiate, Digest realm="r", nonce="n"`
	)
	tests := []struct {
		values []string
		want   []string // scheme and realm of each that can be answered
	}{
		{[]string{basic, full}, []string{"bearer https://a", "basic r"}},
		{[]string{full, basic}, []string{"bearer https://a", "basic r"}},
		{[]string{basic + ", " + full}, []string{"bearer https://a", "basic r"}},
		{[]string{realmless, basic}, []string{"basic r", "bearer"}},
		{[]string{basic, realmless}, []string{"basic r", "bearer"}},
		{[]string{realmless}, []string{"bearer"}},
		{[]string{other, basic}, []string{"basic r"}},
		{[]string{full, `Bearer realm="https://b"`}, []string{"bearer https://a", "bearer https://b"}},
		{[]string{other}, nil},
		{[]string{full + `, x="` + strings.Repeat("x", maxChallenges) + `"`, basic}, []string{"basic r"}},
	}
	for _, tt := range tests {
		var got []string
		for _, c := range rank(parseChallenges(tt.values)) {
			got = append(got, strings.TrimSpace(c.scheme+" "+c.params["realm"]))
		}
		wantEqual(t, fmt.Sprintf("rank(%q)", tt.values), got, tt.want)
	}
}

// writeChallenges is the inverse of parseChallenges for well-formed challenges.
func writeChallenges(cs []challenge) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var elements []string
	for _, c := range cs {
		head := c.scheme
		if c.token68 != "" {
			head += " " + c.token68
		}
		for i, name := range slices.Sorted(maps.Keys(c.params)) {
			sep := ", "
			if i == 0 && c.token68 == "" {
				sep = " "
			}
			head += fmt.Sprintf(`%s%s="%s"`, sep, name, quote.Replace(c.params[name]))
		}
		elements = append(elements, head)
	}
	return strings.Join(elements, ", ")
}

func FuzzParsedChallengesAreWellFormedAndSurviveBeingWritten(f *testing.F) {
	for _, seed := range []string{
		bearer,
		`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`,
		`Negotiate a2V5==, Basic realm=r`,
		`Bearer realm=https://a/t?x=y,service=s scope="repository:a:pull"`,
		`"x, Bearer realm=https://evil", Basic realm=r`,
		`Basic realm="open\`, `,,=,"`, "a =\t\"", `x y z`, "Bearer realm=", "\xff\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := parseChallenges([]string{value})
		for _, c := range got {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || strings.ContainsAny(c.scheme, " \t,=\"") {
				t.Fatalf("scheme %q", c.scheme)
			}
			for name := range c.params {
				if name == "" || name != strings.ToLower(name) {
					t.Fatalf("parameter %q of %q", name, c.scheme)
				}
			}
		}
		if again := parseChallenges([]string{writeChallenges(got)}); !reflect.DeepEqual(again, got) {
			t.Fatalf("%q\nparsed  %+v\nwritten %q\nparsed  %+v", value, got, writeChallenges(got), again)
		}
	})
}
