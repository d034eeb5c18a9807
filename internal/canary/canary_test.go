package canary

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func TestASecretIsFoundHoweverItIsWritten(t *testing.T) {
	secret := Mark + "xyz"
	for n := range 7 {
		text := strings.Repeat("u", n) + ":" + secret + strings.Repeat("~", n)
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			if got := Find("Basic " + encoding.EncodeToString([]byte(text))); got == "" {
				t.Errorf("%q is not found in base64", text)
			}
		}
	}
	for text, want := range map[string]string{
		"it is " + secret + ".":               secret + ".",
		`{"password":"` + secret + `","x":1}`: secret,
		secret + "&x=1":                       secret,
		secret:                                secret,
		Mark + strings.Repeat("x", 200):       Mark + strings.Repeat("x", 93),
		"a canary in a mine":                  "",
		"":                                    "",
		base64.StdEncoding.EncodeToString([]byte("a canary in a mine")): "",
	} {
		if got := Find(text); got != want {
			t.Errorf("%.60q: got %q, want %q", text, got, want)
		}
	}
}

// Signs must not be so short that they come about by chance.
func TestSignsAreLong(t *testing.T) {
	for _, sign := range signs {
		if len(sign) < 7 || len(sign) > Longest {
			t.Errorf("%q has %d characters", sign, len(sign))
		}
	}
	if got := fmt.Sprint(signs); got != "[canary. Y2FuYXJ5L NhbmFyeS jYW5hcnku]" {
		t.Errorf("they are %s", got)
	}
}
