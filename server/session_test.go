package server_test

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/berthoci/berth/server"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestToken(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: server.Token("s3cret")})
	for _, good := range []string{"Bearer s3cret", "bearer s3cret", basic("anybody", "s3cret")} {
		f.want(f.do("GET", "/v2/", "", "Authorization", good), http.StatusOK)
	}
	for _, bad := range []string{"", "Bearer wrong", "Bearer", "Bearer ", basic("s3cret", ""), "Basic !", "s3cret"} {
		resp := f.want(f.do("GET", "/v2/", "", "Authorization", bad), http.StatusUnauthorized, "Www-Authenticate", `Basic realm="berth", charset="UTF-8"`)
		if codes := f.codes(resp); codes != "UNAUTHORIZED" {
			t.Errorf("%q: %s", bad, codes)
		}
	}
}

func TestAnEmptyTokenLetsNobodyIn(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: server.Token("")})
	for _, shown := range []string{"", "Bearer ", basic("", "")} {
		f.want(f.do("GET", "/v2/", "", "Authorization", shown), http.StatusUnauthorized)
	}
}

func TestNothingIsToldBeforeTheTokenIsShown(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: server.Token("s3cret"), ReadOnly: true})
	for _, request := range [][2]string{
		{"GET", "/v2/x/tags/list"}, {"GET", "/nowhere"}, {"OPTIONS", "/v2/"}, {"GET", "/v2/UP/tags/list"}, {"PUT", "/v2/x/manifests/v1"},
		{"GET", server.TokenPath}, // this one gives none
	} {
		f.want(f.do(request[0], request[1], ""), http.StatusUnauthorized)
	}
}
